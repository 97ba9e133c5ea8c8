"""A store on a local disk: files, folders, renames and locks.

    STORE/zarr.json                       attributes: format, format_version, spec, ...
    STORE/episodes.jsonl                  the complete episodes
    STORE/index/<id>.json                 those that came with a store from an address, one each
    STORE/episodes/episode_000000/        the files of an episode
    STORE/episodes/.tmp-<process>-<n>/    an episode being written
    STORE/quarantine/                     episodes that a repair took off the list

An episode is written aside, synced, renamed, then listed, so whatever stops a writer (kill -9, a
full disk, a power cut) leaves every episode that `commit` returned for, and no half of another.
"""

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Collection, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loopdit.datasets.episode import EpisodeRecord
from loopdit.datasets.episode_index import (
    INDEX,
    OBJECTS,
    LockedIndex,
    is_abandoned_upload,
    locked_index,
    lost_ids,
    merged_records,
    record_object,
)
from loopdit.datasets.store_files import EPISODES, QUARANTINE
from loopdit.datasets.zarr_files import Buffer
from loopdit.errors import StoreError
from loopdit.whole_file import sync

_DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class LocalFiles:
    """`StoreFiles` below the folder `path`."""

    path: Path

    def exists(self) -> bool:
        """Whether the folder exists, or anything in its place."""
        return self.path.exists()

    def read(self, name: str) -> np.ndarray | None:
        """A memory map; it holds one file descriptor as long as it lives (numpy's maps do)."""
        try:
            return np.memmap(self.path / name, np.uint8, mode="r")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except ValueError:  # an empty file cannot be mapped
            return np.empty(0, np.uint8)
        except OSError as error:
            if error.errno == errno.ELOOP:  # a link to itself, as good as one to nothing
                return None
            raise StoreError(
                f"cannot read {self.path / name}: {error.strerror}. "
                f"Make it readable, or copy the store to a disk that is whole."
            ) from error

    def create(self, files: Mapping[str, Buffer]) -> None:
        """Write all of them into a folder aside and rename that."""
        root = self.path
        for parent in root.parents:
            if (parent / INDEX).is_file():
                raise StoreError(
                    f"cannot create an episode store at {root}: it would lie in the episode store "
                    f"{parent}. Choose a path beside that."
                )
        try:
            root.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=f".{root.name}.", dir=root.parent) as aside:
                made = Path(aside, root.name)  # in a folder of its own: mkdtemp's are private
                made.mkdir()
                _write_files(made, files)
                _sync_tree(made)
                os.rename(made, root)  # onto nothing or an empty folder; refuses anything else
            sync(root.parent)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise StoreError(
                    f"cannot create an episode store at {root}: it already exists. "
                    f"Resume it, remove it, or choose another path."
                ) from error
            raise StoreError(
                f"cannot create an episode store at {root}: {error.strerror}. "
                f"Choose a path that can be written, on a disk with space."
            ) from error

    def records(self) -> list[EpisodeRecord]:
        """Those of the list, then those that came from an address. Takes no lock."""
        try:
            listed = (self.path / INDEX).read_bytes()
            objects = {
                file.name: file.read_bytes() for file in (self.path / OBJECTS).glob("*.json")
            }
        except OSError as error:
            raise StoreError(
                f"cannot read the list of episodes {error.filename}: {error.strerror}. "
                f"Restore that file, or record the episodes again."
            ) from error
        return merged_records(listed, objects, str(self.path))

    def commit(self, files: Mapping[str, Buffer], outcome: Mapping[str, Any]) -> EpisodeRecord:
        """Written aside, synced, renamed, listed. After an error the store is as it was."""
        try:
            with self._folder_aside() as aside:
                _write_files(aside, files)
                _sync_tree(aside)
                with locked_index(self.path) as index:
                    return self._publish(aside, index, outcome)
        except OSError as error:
            raise self._failed(error) from error

    def sweep(self) -> None:
        """Under the lock of the list: what has the next episode's name then is nobody's, and so
        is an old upload to this folder as to an address.

        Raises StoreError where episodes have lost their lines: none of theirs is removed.
        """
        try:
            with locked_index(self.path) as index:
                listed = {record.id for record in self.records()}
                folders = list((self.path / EPISODES).iterdir())
                next_id = index.next_id(self._taken_ids())
                lost = lost_ids((folder.name for folder in folders), listed, next_id)
                if lost:
                    raise StoreError(
                        f"{self.path / INDEX} has no line for {len(lost)} of the episodes that lie "
                        f"there, as {lost[0]}. Have them listed again: policy-data repair "
                        f"{self.path}."
                    )
                for folder in folders:
                    name = folder.name
                    unlisted = name.startswith("episode_") and name not in listed
                    if (unlisted and is_abandoned_upload(name) is not False) or (
                        name.startswith(".tmp-") and _is_abandoned(folder)
                    ):
                        _remove(folder)
        except OSError as error:
            raise self._failed(error) from error

    def drop(self, ids: Collection[str]) -> None:
        """Moved first, then taken off the list: a crash in between leaves an episode that is
        listed and missing, which the next repair finds, where the other order would leave one
        for `sweep` to delete."""
        try:
            with locked_index(self.path) as index:
                records = {record.id: record for record in self.records()}
                (self.path / QUARANTINE).mkdir(exist_ok=True)
                for id in ids:
                    if id in records:
                        self._set_aside(records[id])
                sync(self.path / QUARANTINE)
                sync(self.path / EPISODES)
                index.remove(ids)
                for id in ids:
                    (self.path / OBJECTS / f"{id}.json").unlink(missing_ok=True)
        except OSError as error:
            raise self._failed(error) from error

    def _set_aside(self, record: EpisodeRecord) -> None:
        quarantine, folder = self.path / QUARANTINE, self.path / EPISODES / record.id
        # Beside its files lies its line: both moved back, to episodes/ and index/, undo this.
        (quarantine / f"{record.id}.json").write_bytes(record_object(record))
        sync(quarantine / f"{record.id}.json")
        if os.path.lexists(folder):
            if os.path.lexists(quarantine / record.id):
                _remove(quarantine / record.id)
            os.rename(folder, quarantine / record.id)

    @contextmanager
    def _folder_aside(self) -> Generator[Path]:
        """A new folder to write in, locked so that a sweep can tell it from a dead process's.

        The lock tells more than the process id in the name: ids are used again, and differ
        between containers that share a disk.
        """
        # Made and locked while no sweep runs, which would find it made and not yet locked.
        with locked_index(self.path):
            aside = self._make_unused_folder()
            descriptor = os.open(aside, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            yield aside
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        finally:
            os.close(descriptor)

    def _make_unused_folder(self) -> Path:
        number = 0
        while True:
            folder = self.path / EPISODES / f".tmp-{os.getpid()}-{number}"
            try:
                folder.mkdir()
                return folder
            except FileExistsError:  # another thread's, or that of a dead process with this id
                number += 1

    def _publish(
        self, aside: Path, index: LockedIndex, outcome: Mapping[str, Any]
    ) -> EpisodeRecord:
        record = EpisodeRecord(id=index.next_id(self._taken_ids()), **outcome)
        final = self.path / EPISODES / record.id
        if os.path.lexists(final):  # renamed by a writer that died before listing it
            _remove(final)
        os.rename(aside, final)
        try:
            sync(final.parent)
            index.append(record)
        except OSError:
            os.rename(final, aside)
            raise
        return record

    def _taken_ids(self) -> list[str]:
        """Those of episodes that are not in the list and yet have their id: what a repair put
        away, and what was put back from there."""
        folders = [self.path / QUARANTINE, self.path / OBJECTS]
        return [file.stem for folder in folders for file in folder.glob("*.json")]

    def _failed(self, error: OSError) -> StoreError:
        try:
            complete = f"{len(self.records())} episodes there are complete and readable"
        except StoreError:
            complete = "its list of episodes cannot be read either"
        remedy = (
            "Free space on that disk or raise the quota, then go on with the same store."
            if error.errno in _DISK_IS_FULL
            else "Mend that, then go on with the same store."
        )
        return StoreError(
            f"cannot write to the episode store {self.path}: {error.strerror}; {complete}. {remedy}"
        )


def _remove(path: Path) -> None:
    """A folder with all in it; of what lies in the place of one (a file, a link) only that."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _is_abandoned(folder: Path) -> bool:
    """Whether nobody holds the lock that a living writer holds on its folder."""
    if not folder.is_dir() or folder.is_symlink():
        return True
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _write_files(folder: Path, files: Mapping[str, Buffer]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with open(folder / name, "wb") as file:
            file.write(content)


def _sync_tree(folder: Path) -> None:
    """Return when every file and folder below and including `folder` is on the disk."""
    paths = [folder, *folder.rglob("*")]
    # At once, because the file system then commits its journal for many: on a busy ext4 disk the
    # 14 paths of an episode took 40 to 60 ms one after the other, 2 to 11 ms this way.
    with ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(sync, paths))  # list() raises what a thread raised
