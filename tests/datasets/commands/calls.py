"""policy-data as it is called, within this process."""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from loopdit.datasets.commands.data import main


@dataclass(frozen=True)
class Outcome:
    """What a call left: its exit status and what it printed."""

    status: int
    out: str
    err: str


Call = Callable[..., Outcome]


def caller(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """call("verify", store, "json=true"): runs it and catches its exit."""

    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["policy-data", *map(str, arguments)])
        status, message = 0, ""
        try:
            main()
        except SystemExit as stopped:
            code = stopped.code
            status = code if isinstance(code, int) else int(code is not None)
            message = code if isinstance(code, str) else ""  # Python prints it at the end
        captured = capsys.readouterr()
        return Outcome(status, captured.out, captured.err + message)

    return call
