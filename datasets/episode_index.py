"""`episodes.jsonl`: the list of a store's complete episodes, one line of JSON each.

An episode exists once its line ends in a newline. What follows the last newline is a line that a
killed writer or a full disk cut short: readers ignore it, and the next writer removes it. Writers
change the list, and the names of the folders it lists, only while they hold its lock.
"""

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from loopdit.datasets.episode import EpisodeRecord
from loopdit.errors import StoreError

INDEX = "episodes.jsonl"


class LockedIndex:
    """The list while this process alone may change it."""

    def __init__(self, descriptor: int, file: Path) -> None:
        self._descriptor = descriptor
        self._file = file
        self._listed = complete_lines(os.pread(descriptor, os.fstat(descriptor).st_size, 0))

    def next_id(self) -> str:
        """One more than the last listed: unlike a count, never a listed one, even where a line
        was removed by hand."""
        last = _records(self._listed.splitlines()[-1:], self._file)
        number = int(last[0].id.removeprefix("episode_")) + 1 if last else 0
        return f"episode_{number:06d}"

    def ids(self) -> set[str]:
        """The ids of all complete episodes."""
        return {record.id for record in _records(self._listed.splitlines(), self._file)}

    def append(self, record: EpisodeRecord) -> None:
        """List one more episode, durably. After an OSError the list is as it was before."""
        line = record.to_line().encode() + b"\n"
        end = len(self._listed)
        try:
            os.ftruncate(self._descriptor, end)
            written = 0
            while written < len(line):  # a nearly full disk takes a part of it without an error
                written += os.pwrite(self._descriptor, line[written:], end + written)
            os.fsync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, end)
            raise
        self._listed += line


@contextmanager
def locked_index(root: Path) -> Generator[LockedIndex]:
    """Hold the lock of the list, waiting for it. The kernel frees it when a holder dies."""
    # flock, not lockf: a lockf lock is lost when any other descriptor of the process closes.
    descriptor = os.open(root / INDEX, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield LockedIndex(descriptor, root / INDEX)
    finally:
        os.close(descriptor)


def read_index(root: Path) -> list[EpisodeRecord]:
    """The complete episodes, in the order in which they were appended. Takes no lock."""
    return _records(complete_lines((root / INDEX).read_bytes()).splitlines(), root / INDEX)


def complete_lines(content: bytes) -> bytes:
    """`content` up to and including its last newline."""
    return content[: content.rfind(b"\n") + 1]


def _records(lines: list[bytes], file: Path) -> list[EpisodeRecord]:
    records: list[EpisodeRecord] = []
    for line in lines:
        try:
            records.append(EpisodeRecord.from_line(line))
        except (ValueError, TypeError) as error:
            raise StoreError(
                f"{file} has a damaged line: {line[:80]!r}. "
                f"Remove that line to go on without its episode."
            ) from error
    return records
