"""The list of a store's complete episodes, one line of JSON each; readers believe nothing else.

    episodes.jsonl      the list of a store on a disk
    index/<id>.json     one line by itself, for a store at an address that cannot be appended to

Both count, so a store can be copied either way and gone on with. A line exists once it ends in a
newline. What follows the last newline is a line that a killed writer or a full disk cut short:
readers ignore it, and the next writer removes it. Writers change `episodes.jsonl`, and the names
of the folders it lists, only while they hold its lock.
"""

import fcntl
import os
import re
import secrets
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from loopdit.datasets.episode import EpisodeRecord
from loopdit.errors import StoreError
from loopdit.whole_file import whole_file

INDEX = "episodes.jsonl"
OBJECTS = "index"

# An episode that is being uploaded looks like one whose writer died. No upload of an episode
# takes a day, and clocks are not a day apart.
UPLOAD_MAY_TAKE = timedelta(days=1)

_NUMBERED = re.compile(r"episode_(\d+)")
_DATED = re.compile(r"episode_(\d{8}T\d{12})_[0-9a-f]{8}")
_DATE = "%Y%m%dT%H%M%S%f"


class LockedIndex:
    """The list while this process alone may change it."""

    def __init__(self, descriptor: int, file: Path) -> None:
        self._descriptor = descriptor
        self._file = file
        self._listed = complete_lines(os.pread(descriptor, os.fstat(descriptor).st_size, 0))

    def next_id(self, taken: Collection[str] = ()) -> str:
        """One more than the last listed and all `taken`: unlike a count, never a listed one, even
        where a line was removed by hand."""
        last = _records(self._listed.splitlines()[-1:], self._file)
        found = (_NUMBERED.fullmatch(id) for id in [*(record.id for record in last), *taken])
        number = max((int(match[1]) + 1 for match in found if match), default=0)
        return f"episode_{number:06d}"

    def append(self, record: EpisodeRecord) -> None:
        """List one more episode, durably. After an OSError the list is as it was before."""
        line = record_object(record)
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

    def remove(self, ids: Collection[str]) -> None:
        """Take episodes off the list, durably and all at once."""
        kept = lines_without(self._listed, ids, self._file)
        if kept == self._listed:
            return
        # A new file: the old one must stay whole until the new one is. The lock is lost to those
        # who wait for the old one's, so `locked_index` looks which file it got.
        with whole_file(self._file) as aside:
            aside.write_bytes(kept)
        folder = os.open(self._file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def locked_index(root: Path) -> Generator[LockedIndex]:
    """Hold the lock of the list, waiting for it. The kernel frees it when a holder dies."""
    while True:
        # flock, not lockf: a lockf lock is lost when any other descriptor of the process closes.
        descriptor = os.open(root / INDEX, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(descriptor), os.stat(root / INDEX)):
                yield LockedIndex(descriptor, root / INDEX)
                return
        finally:
            os.close(descriptor)


def merged_records(listed: bytes, objects: Mapping[str, bytes], store: str) -> list[EpisodeRecord]:
    """The episodes of `episodes.jsonl`, then those of the files in `index/` by name, each once.

    A file there that does not end in a newline was cut short, like a last line.
    """
    records = _records(complete_lines(listed).splitlines(), f"{store}/{INDEX}")
    for name in sorted(objects):
        if objects[name].endswith(b"\n"):
            records += _records([objects[name]], f"{store}/{OBJECTS}/{name}")
    return list({record.id: record for record in reversed(records)}.values())[::-1]


def record_object(record: EpisodeRecord) -> bytes:
    """The line of an episode, with its newline."""
    return record.to_line().encode() + b"\n"


def lines_without(listed: bytes, ids: Collection[str], file: Path | str) -> bytes:
    """The complete lines of `episodes.jsonl` but those of some episodes."""
    lines = complete_lines(listed).splitlines(keepends=True)
    records = _records(lines, file)
    return b"".join(
        line for line, record in zip(lines, records, strict=True) if record.id not in ids
    )


def complete_lines(content: bytes) -> bytes:
    """`content` up to and including its last newline."""
    return content[: content.rfind(b"\n") + 1]


def new_dated_id() -> str:
    """An id that no other writer has and that sorts by the time of its making: at an address
    nobody can be asked for the next number."""
    return f"episode_{datetime.now(UTC):{_DATE}}_{secrets.token_hex(4)}"


def upload_age(id: str) -> timedelta | None:
    """How long ago `new_dated_id` made this id; None for a numbered one, or another name."""
    match = _DATED.fullmatch(id)
    made = datetime.strptime(match[1], _DATE).replace(tzinfo=UTC) if match else None
    return None if made is None else datetime.now(UTC) - made


def is_abandoned_upload(id: str) -> bool | None:
    """Whether an unlisted episode with a dated id will not be listed any more; None where the id
    is not dated."""
    age = upload_age(id)
    return None if age is None else age > UPLOAD_MAY_TAKE


def _records(lines: list[bytes], file: Path | str) -> list[EpisodeRecord]:
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
