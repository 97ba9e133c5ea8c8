"""A store at an address that fsspec knows: objects that are put and read whole.

An object store has no rename, no lock and no append, so an episode's objects go below an id that
nobody else has, and one more small object, put when all of them are there, makes the episode:

    ADDRESS/zarr.json, episodes.jsonl     as on a disk; the list is empty, or came from a disk
    ADDRESS/index/<id>.json               the line of one episode: it exists once this does
    ADDRESS/episodes/<id>/                its files, as on a disk
    ADDRESS/quarantine/                   episodes that a repair took off the list

Any number of writers put at once and never touch what another put. One that is killed leaves
objects that no list names: `sweep` removes those that are a day old, since younger ones may be an
upload that still goes on. This module knows no object store in particular, and needs of one that
a small object is put wholly, and read by everybody once it was.
"""

from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from loopdit.datasets.episode import EpisodeRecord
from loopdit.datasets.episode_index import (
    INDEX,
    OBJECTS,
    UPLOAD_MAY_TAKE,
    is_abandoned_upload,
    lines_without,
    merged_records,
    new_dated_id,
    record_object,
    upload_age,
)
from loopdit.datasets.store_files import EPISODES, QUARANTINE
from loopdit.datasets.zarr_files import Buffer
from loopdit.errors import StoreError

_AT_ONCE = 16  # each object costs a round trip, and most of an episode's objects are small
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def is_address(path: str) -> bool:
    """Whether this names something that fsspec opens, and no path: `s3://bucket/lift.zarr`."""
    return "://" in path


@dataclass(frozen=True)
class RemoteFiles:
    """`StoreFiles` below the address `path`."""

    path: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", self.path.rstrip("/"))

    def exists(self) -> bool:
        """Whether there is any object below the address."""
        with self._told("read") as place:
            return bool(place.names(""))

    def read(self, name: str) -> np.ndarray | None:
        """The whole object, fetched."""
        with self._told("read") as place:
            content = place.get(name)
        return None if content is None else np.frombuffer(content, np.uint8)

    def create(self, files: Mapping[str, Buffer]) -> None:
        """Put the root last: there is no store until it is there."""
        with self._told("create") as place:
            if place.names("") or not place.put_new(files):
                raise StoreError(
                    f"cannot create an episode store at {self.path}: it already exists. "
                    f"Resume it, remove it, or choose another address."
                )

    def records(self) -> list[EpisodeRecord]:
        """Those of the list that came from a disk, then those of the small objects."""
        with self._told("read the list of episodes of") as place:
            names = [name for name in place.names(OBJECTS) if name.endswith(".json")]
            found = _at_once(lambda name: place.get(f"{OBJECTS}/{name}"), names)
            listed = place.get(INDEX)
        objects = {name: line for name, line in zip(names, found, strict=True) if line is not None}
        if listed is None:
            raise StoreError(
                f"cannot read the list of episodes {self.path}/{INDEX}: it is missing. "
                f"Restore that object, an empty one if the store was never on a disk."
            )
        return merged_records(listed, objects, self.path)

    def commit(self, files: Mapping[str, Buffer], outcome: Mapping[str, Any]) -> EpisodeRecord:
        """Put the files, then the line. Killed before the line: no episode, nothing to mend."""
        record = EpisodeRecord(id=new_dated_id(), **outcome)
        with self._told("write to") as place:
            place.put({f"{EPISODES}/{record.id}/{name}": data for name, data in files.items()})
            age = upload_age(record.id)
            if age is None or age > UPLOAD_MAY_TAKE / 2:
                raise StoreError(
                    f"putting an episode into {self.path} took {age}, after which others remove "
                    f"it as a dead writer's. Put it again, over a faster connection."
                )
            place.put({f"{OBJECTS}/{record.id}.json": record_object(record)})
        return record

    def sweep(self) -> None:
        """Without a lock nobody can tell a dead writer's objects from a slow one's, except by the
        time in their id."""
        with self._told("write to") as place:
            old = [name for name in place.names(EPISODES) if is_abandoned_upload(name)]
        if old:
            listed = {record.id for record in self.records()}
            with self._told("write to") as place:
                for id in old:
                    if id not in listed:
                        place.remove(f"{EPISODES}/{id}")
                        place.remove(f"{OBJECTS}/{id}.json")  # one that was cut short

    def drop(self, ids: Collection[str]) -> None:
        """Copied first, then taken off the list, then removed, so that a crash loses nothing.

        One that takes episodes off a list that came from a disk must be alone: the list is put
        anew.
        """
        records = {record.id: record for record in self.records()}
        with self._told("write to") as place:
            for id in ids:
                if id in records:
                    place.copy(f"{EPISODES}/{id}", f"{QUARANTINE}/{id}")
                    place.put({f"{QUARANTINE}/{id}.json": record_object(records[id])})
            listed = place.get(INDEX) or b""
            kept = lines_without(listed, ids, f"{self.path}/{INDEX}")
            if kept != listed:
                place.put({INDEX: kept})
            for id in ids:
                place.remove(f"{OBJECTS}/{id}.json")
                place.remove(f"{EPISODES}/{id}")

    @contextmanager
    def _told(self, doing: str) -> Generator["_Place"]:
        """The opened address; whatever goes wrong there is told as a StoreError.

        Every kind of address raises errors of its own library, with no common base.
        """
        try:
            yield _open(self.path)
        except StoreError:
            raise
        except ImportError as error:
            raise StoreError(
                f"cannot open {self.path}: {error}. "
                f"Install the package that error names, or copy the store to a local disk."
            ) from error
        except Exception as error:
            reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise StoreError(
                f"cannot {doing} the episode store {self.path}: {reason}. Check the address, the "
                f"credentials and the network; episodes that were complete there still are."
            ) from error


@dataclass(frozen=True)
class _Place:
    """A file system of fsspec's and the root of a store in it."""

    system: Any
    root: str

    def of(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    def get(self, name: str) -> bytes | None:
        try:
            return self.system.cat_file(self.of(name))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def names(self, folder: str) -> list[str]:
        """The names in a folder, freshly listed."""
        self.system.invalidate_cache(self.of(folder))
        try:
            found = self.system.ls(self.of(folder), detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [path.rstrip("/").rpartition("/")[2] for path in found if path != self.of(folder)]

    def put(self, files: Mapping[str, Buffer]) -> None:
        _at_once(lambda item: self._put_one(*item), files.items())

    def put_new(self, files: Mapping[str, Buffer]) -> bool:
        """Put the last of them only when all others are there, and False where it exists."""
        *others, (last, content) = files.items()
        self.put(dict(others))
        try:
            self._put_one(last, content, mode="create")
        except FileExistsError:
            return False
        return True

    def _put_one(self, name: str, content: Buffer, mode: str = "overwrite") -> None:
        path = self.of(name)
        try:
            self.system.pipe_file(path, bytes(content), mode=mode)
        except FileNotFoundError:  # some have folders, which must be there first
            self._make_folders(path.rpartition("/")[0])
            self.system.pipe_file(path, bytes(content), mode=mode)

    def _make_folders(self, path: str) -> None:
        """All but the first: that would be a bucket, and a misspelt one must not be made."""
        parts = path.split("/")
        for end in range(2, len(parts) + 1):
            with suppress(FileExistsError):
                self.system.mkdir("/".join(parts[:end]), create_parents=False)

    def copy(self, folder: str, to: str) -> None:
        try:
            found: list[str] = self.system.find(self.of(folder))
        except FileNotFoundError:
            return
        names = [path.removeprefix(self.of(folder)).lstrip("/") for path in found]
        for name in names:
            content = self.get(f"{folder}/{name}")
            if content is not None:
                self.put({f"{to}/{name}": content})

    def remove(self, name: str) -> None:
        try:
            self.system.rm(self.of(name), recursive=True)
        except FileNotFoundError:
            return


def _open(address: str) -> _Place:
    from fsspec.core import url_to_fs

    system, root = url_to_fs(address)
    return _Place(system, root.rstrip("/"))


def _at_once(work: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        return list(pool.map(work, items))
