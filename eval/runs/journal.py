"""`rollouts.jsonl`: every rollout as it ended, one line each, on the disk before the next counts.

    {"kind": "run", "format", "format_version", "run", "plan", ...}    begins a run
    {"kind": "rollout", "run", ...}                                    one of its rollouts
    {"kind": "end", "run"}                                             all of them are there

`run` is the digest of the plan, and names the run.

Lines are JSON and only ever appended; each ends with the CRC-32 of what precedes it, so that a
damaged one is noticed. A line that was being written when the machine stopped has no end of line:
it is dropped. Knows nothing of what a rollout says (`rollout_record`), nor of which are missing.
"""

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from loopdit.errors import ConfigError

FILE = "rollouts.jsonl"
FORMAT = "loopdit-rollouts"
FORMAT_VERSION = 1
_CRC = ', "crc32": "'

Record = dict[str, Any]


@dataclass
class Run:
    """One run of a journal: its first line, the rollouts that followed, whether it came to its
    end."""

    header: Record
    rollouts: list[Record] = field(default_factory=list[Record])
    finished: bool = False

    @property
    def digest(self) -> str:
        """What names the plan; runs of the same plan have the same."""
        return str(self.header["run"])


@dataclass(frozen=True)
class Journal:
    """What was read: the runs in order, and `size`, the bytes of whole lines. `torn` is the bytes
    of a last line without an end."""

    runs: list[Run]
    size: int
    torn: int


def read_journal(folder: Path) -> Journal:
    """Read `folder`/rollouts.jsonl; no runs where there is no such file.

    Raises ConfigError for one that cannot be read, is damaged, or of another version.
    """
    path = folder / FILE
    try:
        content = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}. Choose another out=.") from error
    size = content.rfind(b"\n") + 1
    runs: list[Run] = []
    for number, line in enumerate(content[:size].splitlines(), 1):
        record = _parsed(line, f"line {number} of {path}")
        if record["kind"] == "run":
            _require_version(record, path)
            runs.append(Run(record))
        elif not runs or record["run"] != runs[-1].digest:
            raise ConfigError(_damaged(f"line {number} of {path}", "its run has not begun"))
        elif record["kind"] == "rollout":
            runs[-1].rollouts.append(record)
        elif record["kind"] == "end":
            runs[-1].finished = True
    return Journal(runs, size, len(content) - size)


class JournalWriter:
    """Adds lines to `folder`/rollouts.jsonl: a context manager. One at a time, which is the
    caller's to see to. What lies behind the last whole line is cut off.

    Raises ConfigError when it cannot be opened.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise ConfigError(
                f"cannot write {self._path}: {error.strerror}. Choose another out=."
            ) from error
        self._size = _whole_lines(self._descriptor)
        os.ftruncate(self._descriptor, self._size)
        os.lseek(self._descriptor, self._size, os.SEEK_SET)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one line and wait until it is on the disk.

        Raises ConfigError when it cannot be; the lines before it are whole.
        """
        line = encoded(record)
        try:
            written = 0
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
            os.fsync(self._descriptor)
        except OSError as error:
            os.ftruncate(self._descriptor, self._size)
            raise ConfigError(
                f"cannot write {self._path}: {error.strerror}; the rollouts before are safe in it. "
                f"Free space and give the same command again: it goes on there."
            ) from error
        self._size += len(line)


def encoded(record: Mapping[str, Any]) -> bytes:
    """One line, with its checksum and its end."""
    text = json.dumps(record)[:-1]
    return f'{text}{_CRC}{zlib.crc32(text.encode()):08x}"}}\n'.encode()


def _parsed(line: bytes, where: str) -> Record:
    text, mark, crc = line.rpartition(_CRC.encode())
    if not mark or crc != f'{zlib.crc32(text):08x}"}}'.encode():
        raise ConfigError(_damaged(where, "its checksum is wrong"))
    record: Record = json.loads(text + b"}")
    return record


def _damaged(where: str, why: str) -> str:
    return (
        f"{where} is damaged ({why}). Remove that line to go on without it, or the file to start "
        f"anew."
    )


def _require_version(header: Record, path: Path) -> None:
    found = (header.get("format"), header.get("format_version"))
    if found != (FORMAT, FORMAT_VERSION):
        raise ConfigError(
            f"{path} has format {found[0]!r} version {found[1]!r}; this loopdit reads {FORMAT!r} "
            f"version {FORMAT_VERSION}. Choose another out=."
        )


def _whole_lines(descriptor: int) -> int:
    """Bytes up to the end of the last whole line."""
    content = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    return content.rfind(b"\n") + 1
