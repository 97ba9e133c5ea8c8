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
from collections.abc import Collection, Generator, Iterable, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from loopdit.datasets.episode import EpisodeRecord
from loopdit.errors import StoreError
from loopdit.whole_file import sync, whole_file

INDEX = "episodes.jsonl"
OBJECTS = "index"

# An episode that is being uploaded looks like one whose writer died. No upload of an episode
# takes a day, and clocks are not a day apart.
UPLOAD_MAY_TAKE = timedelta(days=1)

_TAIL = 4096  # bytes that are read at once from the end of a list; a line has about 150
_NUMBERED = re.compile(r"episode_(\d+)")
_DATED = re.compile(r"episode_(\d{8}T\d{12})_[0-9a-f]{8}")
_DATE = "%Y%m%dT%H%M%S%f"


class LockedIndex:
    """The list while this process alone may change it."""

    def __init__(self, descriptor: int, file: Path) -> None:
        self._descriptor = descriptor
        self._file = file
        self._end = _end_of_last_line(descriptor)

    def next_id(self, taken: Collection[str] = ()) -> str:
        """One more than the last listed and all `taken`: unlike a count, never a listed one, even
        where a line was removed by hand."""
        last = [_record(line, str(self._file)) for line in self._last_line()]
        return numbered_after([*(record.id for record in last), *taken])

    def append(self, record: EpisodeRecord) -> None:
        """List one more episode, durably. After an OSError the list is as it was before."""
        line = record_object(record)
        end = self._end
        try:
            os.ftruncate(self._descriptor, end)
            written = 0
            while written < len(line):  # a nearly full disk takes a part of it without an error
                written += os.pwrite(self._descriptor, line[written:], end + written)
            os.fsync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, end)
            raise
        self._end += len(line)

    def remove(self, ids: Collection[str]) -> None:
        """Take episodes off the list, durably and all at once."""
        listed = os.pread(self._descriptor, self._end, 0)
        kept = lines_without(listed, ids, self._file)
        if kept == listed:
            return
        # A new file: the old one must stay whole until the new one is. The lock is lost to those
        # who wait for the old one's, so `locked_index` looks which file it got.
        with whole_file(self._file) as aside:
            aside.write_bytes(kept)
        sync(self._file.parent)

    def _last_line(self) -> list[bytes]:
        start = _last_newline(self._descriptor, self._end - 1) + 1
        return os.pread(self._descriptor, self._end - start, start).splitlines()


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
            records.append(_record(objects[name], f"{store}/{OBJECTS}/{name}"))
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


def numbered_after(ids: Iterable[str]) -> str:
    """The id one above the numbered ones of these."""
    found = (_NUMBERED.fullmatch(id) for id in ids)
    number = max((int(match[1]) + 1 for match in found if match), default=0)
    return f"episode_{number:06d}"


def lost_ids(folders: Iterable[str], listed: Collection[str], next_id: str) -> list[str]:
    """Which of the folders among the episodes have lost their line: they were numbered for the
    list and are not in it. The next to be written may not have been listed yet."""
    return sorted(
        name
        for name in folders
        if _NUMBERED.fullmatch(name) and name not in listed and name != next_id
    )


def _end_of_last_line(descriptor: int) -> int:
    """Bytes up to and including the last newline."""
    return _last_newline(descriptor, os.fstat(descriptor).st_size) + 1


def _last_newline(descriptor: int, end: int) -> int:
    """Where the last newline before `end` is, -1 where there is none.

    Looked for from the end, so that appending to a long list takes no longer than to a short one.
    """
    while end > 0:
        start = max(0, end - _TAIL)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found
        end = start
    return -1


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
    return [_record(line, f"{file}, line {number}") for number, line in enumerate(lines, 1)]


def _record(line: bytes, where: str) -> EpisodeRecord:
    try:
        return EpisodeRecord.from_line(line)
    except ValueError as error:
        raise StoreError(
            f"{where} is damaged, {error}: {line[:80]!r}. "
            f"Have it written anew from its episode: policy-data repair."
        ) from error
