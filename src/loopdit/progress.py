"""How far a long command is: a live bar on a terminal, a line every few seconds elsewhere."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

_LINE_EVERY_S = 5.0


class Progress:
    """A context manager around `total` units of work.

    `update(done, note)` may be called as often as one likes. On a terminal the line is redrawn;
    in a pipe or a log file a whole line is written at most every five seconds, so that whoever
    watches sees what runs, how far it is and how long it still takes. `already` units were done
    by an earlier run, and say nothing of this one's speed. `stream` is where that is written;
    None is standard output.
    """

    def __init__(
        self,
        label: str,
        total: float,
        clock: Callable[[], float] = time.monotonic,
        already: float = 0.0,
        stream: TextIO | None = None,
    ) -> None:
        self._label = label
        self._already = already
        self._total = max(total, 1e-9)
        self._clock = clock
        self._stream = stream or sys.stdout
        self._live = self._stream.isatty()
        self._started = clock()
        self._written = -float("inf")
        self._last = ""

    def __enter__(self) -> Self:
        return self

    def update(self, done: float, note: str = "") -> None:
        """`done` of `total` units are finished; `note` is shown beside (a loss, a count)."""
        now = self._clock()
        self._last = self._line(done, note, now)
        if now - self._written >= (0.1 if self._live else _LINE_EVERY_S):
            self._write()
            self._written = now

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._last:
            return
        self._write()
        if self._live:
            self._stream.write("\n")
            self._stream.flush()

    def _line(self, done: float, note: str, now: float) -> str:
        share = min(1.0, done / self._total)
        elapsed = now - self._started
        rate = (done - self._already) / max(elapsed, 1e-9)
        left = max(0.0, self._total - done) / rate if rate > 0 else 0.0
        to_go = f"{clock_text(left)} to go" if rate > 0 else "starting"
        text = f"{self._label} {share:4.0%}  {clock_text(elapsed)} passed, {to_go}"
        return f"{text}  {note}" if note else text

    def _write(self) -> None:
        self._stream.write(f"\r\x1b[2K{self._last}" if self._live else f"{self._last}\n")
        self._stream.flush()


def clock_text(seconds: float) -> str:
    """83 -> '1:23'."""
    whole = max(0, round(seconds))
    return f"{whole // 60}:{whole % 60:02d}"
