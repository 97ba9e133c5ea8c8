"""A store's list of episodes where some of its lines cannot be read, or list an episode again.

Readers refuse such a list as a whole, rather than guess which episodes there were. `relist` makes
a line anew from what the episode says of itself in its own attributes, so that an altered line
costs no episode; whether that episode is whole is for `check_episode` to say.
"""

import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

from loopdit.datasets.episode import EpisodeRecord
from loopdit.datasets.episode_index import (
    INDEX,
    OBJECTS,
    complete_lines,
    is_abandoned_upload,
    locked_index,
    lost_ids,
    numbered_after,
    record_object,
)
from loopdit.datasets.store_files import EPISODES, QUARANTINE, StoreFiles
from loopdit.datasets.zarr_files import METADATA
from loopdit.whole_file import sync, whole_file


@dataclass(frozen=True)
class DamagedLine:
    """`where` is its file below the store, with the number of the line in it."""

    where: str
    problem: str


@dataclass(frozen=True)
class ReadList:
    """What can be read of a list. `good` are its lines without the damaged ones, `torn` whether
    something follows the last newline, `bad_objects` the ids of damaged files in `index/`, `lost`
    those of episodes that have no line any more."""

    records: list[EpisodeRecord]
    damaged: list[DamagedLine]
    good: bytes
    torn: bool
    bad_objects: list[str]
    lost: list[str]


def read_list(files: StoreFiles) -> ReadList:
    """Read the list line by line. Raises StoreError where the place that holds it fails."""
    folders = _names(files, EPISODES)  # before the list: others may be appending
    content = files.read(INDEX)
    listed = b"" if content is None else content.tobytes()
    records: dict[str, EpisodeRecord] = {}
    damaged: list[DamagedLine] = []
    if content is None:
        damaged.append(DamagedLine(INDEX, "is missing"))
    good: list[bytes] = []
    for number, line in enumerate(complete_lines(listed).splitlines(keepends=True), 1):
        record = _record(line)
        if record is None or record.id in records:
            problem = "cannot be read" if record is None else f"lists {record.id} again"
            damaged.append(DamagedLine(f"{INDEX}, line {number}", f"{problem}: {_start(line)}"))
            continue
        good.append(line)
        records[record.id] = record
    bad_objects: list[str] = []
    for id, line in _objects(files).items():
        if not line.endswith(b"\n"):
            continue  # cut short as it was written: readers pass over it
        record = _record(line)
        if record is None or record.id != id:
            damaged.append(DamagedLine(f"{OBJECTS}/{id}.json", f"cannot be read: {_start(line)}"))
            bad_objects.append(id)
        else:
            records.setdefault(id, record)
    tail = listed[len(complete_lines(listed)) :]
    if _record(tail[:-1]):  # a writer that was killed leaves less than a line, never more
        damaged.append(DamagedLine(INDEX, f"does not end in a newline: {_start(tail)}"))
    lost = _lost(files, folders, records) if content is not None and not damaged else []
    if lost:
        few = f"{', '.join(lost[:3])}{', ...' if len(lost) > 3 else ''}"
        damaged.append(DamagedLine(INDEX, f"has no line for {few} ({len(lost)} episodes)"))
    return ReadList(list(records.values()), damaged, b"".join(good), bool(tail), bad_objects, lost)


def relist(files: StoreFiles) -> list[str]:
    """Remove damaged lines, and list every episode that then has no line; the ids of those.

    On the local disk under the lock of the list. An episode that is being uploaded is left alone.
    """
    if isinstance(files.path, Path):
        (files.path / INDEX).touch()
        with locked_index(files.path):
            return _relist_locked(files)
    return _relist_locked(files)


def _relist_locked(files: StoreFiles) -> list[str]:
    found = read_list(files)
    listed = {record.id for record in found.records}
    unlisted = [
        id
        for id in _names(files, EPISODES)
        if id.startswith("episode_")
        and id not in listed
        and (id in found.bad_objects or is_abandoned_upload(id) is not False)
    ]
    anew = {id: _rebuilt(files, id) for id in unlisted}
    for id in found.bad_objects:
        _write(files, f"{OBJECTS}/{id}.json", record_object(anew[id]) if id in anew else None)
    lines = [record_object(record) for id, record in anew.items() if id not in found.bad_objects]
    _write(files, INDEX, b"".join([found.good, *lines]))
    return list(anew)


def _lost(files: StoreFiles, folders: Collection[str], listed: Collection[str]) -> list[str]:
    taken = [
        name.removesuffix(".json")
        for folder in (QUARANTINE, OBJECTS)
        for name in _names(files, folder)
    ]
    lost = lost_ids(folders, listed, numbered_after([*listed, *taken]))
    there = set(_names(files, EPISODES)) if lost else set[str]()  # a repair may have moved them
    return [id for id in lost if id in there]


def _record(line: bytes) -> EpisodeRecord | None:
    """What the line says, None for anything else than `EpisodeRecord.to_line` writes."""
    try:
        return EpisodeRecord.from_line(line)
    except ValueError:
        return None


def _rebuilt(files: StoreFiles, id: str) -> EpisodeRecord:
    """The line of an episode from its own attributes. Where they cannot be read, one that no
    episode fits, so that it is found damaged."""
    said: dict[str, Any] = {}
    content = files.read(f"{EPISODES}/{id}/{METADATA}")
    if content is not None:
        with suppress(ValueError, KeyError, TypeError):
            said = dict(json.loads(content.tobytes())["attributes"])
    line = {field.name: said.get(field.name) for field in fields(EpisodeRecord)} | {"id": id}
    return _record(json.dumps(line).encode()) or EpisodeRecord(id, 1, "", None, None, "")


def _start(line: bytes) -> str:
    return f"{line[:60]!r}{'...' if len(line) > 60 else ''}"


# What follows knows both kinds of places, because `StoreFiles` has no listing: nobody else needs
# one, and a list at an address may be long.


def _names(files: StoreFiles, folder: str) -> list[str]:
    if isinstance(files.path, Path):
        return sorted(entry.name for entry in (files.path / folder).glob("*"))
    system, root = _address(files.path)
    system.invalidate_cache()
    try:
        found: list[str] = system.ls(f"{root}/{folder}", detail=False)
    except FileNotFoundError:
        return []
    return sorted(path.rstrip("/").rpartition("/")[2] for path in found)


def _objects(files: StoreFiles) -> Mapping[str, bytes]:
    """The lines in `index/` by the id in their name."""
    found: dict[str, bytes] = {}
    for name in _names(files, OBJECTS):
        content = files.read(f"{OBJECTS}/{name}") if name.endswith(".json") else None
        if content is not None:
            found[name.removesuffix(".json")] = content.tobytes()
    return found


def _write(files: StoreFiles, name: str, content: bytes | None) -> None:
    """Put a file, or remove it."""
    if isinstance(files.path, Path):
        path = files.path / name
        if content is None:
            path.unlink(missing_ok=True)
        else:
            with whole_file(path) as aside:
                aside.write_bytes(content)
        sync(path.parent)
        return
    system, root = _address(files.path)
    if content is None:
        system.rm(f"{root}/{name}")
    else:
        system.pipe_file(f"{root}/{name}", content)


def _address(address: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    system, root = cast("tuple[Any, str]", url_to_fs(address))
    return system, root.rstrip("/")


def leftovers(files: StoreFiles, listed: Collection[str]) -> list[str]:
    """Folders among the episodes that no line names: what killed writers left, or living ones
    are at."""
    names = _names(files, EPISODES)
    return [name for name in names if name not in listed and name != METADATA]
