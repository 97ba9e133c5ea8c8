"""Episodes on the local disk: a Zarr v3 group that any number of processes append to.

    STORE/zarr.json                       attributes: format, format_version, spec, provenance
    STORE/episodes.jsonl                  the complete episodes; readers believe only this list
    STORE/episodes/episode_000000/        a Zarr v3 group with one array per tensor
    STORE/episodes/.tmp-<process>-<n>/    an episode being written

An episode is written aside, synced, renamed, then listed, so whatever stops a writer (kill -9, a
full disk, a power cut) leaves every episode that `append` returned for, and no half of another.
"""

import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loopdit.datasets.episode import (
    ACTION,
    Episode,
    EpisodeRecord,
    checked_arrays,
    content_digest,
    tensor_shapes,
)
from loopdit.datasets.episode_index import INDEX, LockedIndex, locked_index, read_index
from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.store_root import check_names, read_root, root_attributes
from loopdit.datasets.zarr_files import (
    chunk_file,
    sync_folder,
    sync_tree,
    write_array,
    write_group,
)
from loopdit.errors import StoreError

__all__ = ["ACTION", "Episode", "EpisodeRecord", "EpisodeStore", "EpisodeWriter"]

EPISODES = "episodes"
_DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class EpisodeStore:
    """The episodes that were complete when the store was opened, in the order of their appending.

    `provenance` says how the data was made, in the words of whoever made it (plain JSON).
    """

    path: Path
    spec: PolicySpec
    provenance: dict[str, Any]
    episodes: list[EpisodeRecord]

    @classmethod
    def open(cls, path: str | Path) -> "EpisodeStore":
        """Read the spec and the list. Raises StoreError for a path that is missing, no episode
        store, of another format version or damaged, and SpecMismatch for a spec of another
        version."""
        root = Path(path).resolve()
        attributes = read_root(root)
        try:
            episodes = read_index(root)
        except OSError as error:
            raise StoreError(
                f"cannot read the list of episodes {root / INDEX}: {error.strerror}. "
                f"Restore that file, or record the episodes again."
            ) from error
        return cls(
            root, PolicySpec.from_dict(attributes["spec"]), attributes["provenance"], episodes
        )

    def arrays(self, index: int) -> dict[str, np.ndarray]:
        """Read-only memory maps (T, ...) of one episode's observations and of "action" (T, A).

        Each holds one file descriptor as long as it lives (numpy's maps do), so thousands of
        them at once meet the process's limit. Raises StoreError for a missing or short file.
        """
        maps: dict[str, np.ndarray] = {}
        for name, (shape, dtype) in tensor_shapes(self.spec, self.episodes[index].length).items():
            file = self.file(index, name)
            expected = int(np.prod(shape)) * dtype.itemsize
            found = file.stat().st_size if file.exists() else 0
            if found != expected:
                raise StoreError(
                    f"{file} has {found} bytes, its episode {expected}. Restore that file, or "
                    f"remove the episode's line from {self.path / INDEX} to go on without it."
                )
            maps[name] = np.memmap(file, dtype, mode="r", shape=shape)
        return maps

    def file(self, index: int, name: str) -> Path:
        """The file that holds one tensor of one episode as plain little-endian C-order bytes."""
        shape, _ = tensor_shapes(self.spec, self.episodes[index].length)[name]
        return chunk_file(self.path / EPISODES / self.episodes[index].id / name, len(shape))

    def canonical_order(self) -> list[int]:
        """The indices of the episodes by seed, then content.

        Several collecting processes finish in any order; what is computed in this one depends
        on the data alone.
        """
        records = self.episodes
        return sorted(range(len(records)), key=lambda i: (records[i].seed, records[i].digest))

    def digest(self) -> str:
        """16 hex digits for the spec and the episodes' content, in whichever order appended."""
        parts = [self.spec.digest(), *sorted(record.digest for record in self.episodes)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class EpisodeWriter:
    """Appends episodes to the store at `path`.

    It holds nothing open between two appends: it can be pickled to worker processes, and all of
    them may append at once.
    """

    path: Path
    spec: PolicySpec

    @classmethod
    def create(
        cls, path: str | Path, spec: PolicySpec, provenance: Mapping[str, Any]
    ) -> "EpisodeWriter":
        """Make an empty store, whole or not at all. Raises StoreError where something exists."""
        check_names(spec)
        root = Path(path).resolve()
        try:
            root.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=f".{root.name}.", dir=root.parent) as aside:
                made = Path(aside, root.name)  # in a folder of its own: mkdtemp's are private
                (made / EPISODES).mkdir(parents=True)
                write_group(made, root_attributes(spec, provenance))
                write_group(made / EPISODES, {})
                (made / INDEX).touch()
                sync_tree(made)
                os.rename(made, root)  # onto nothing or an empty folder; refuses anything else
            sync_folder(root.parent)
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
        return cls(root, spec)

    @classmethod
    def resume(cls, path: str | Path, spec: PolicySpec) -> "EpisodeWriter":
        """Go on with an existing store, and remove what killed writers left in it.

        Safe while other processes append. Raises what `EpisodeStore.open` raises, and
        SpecMismatch where `spec` is not the store's.
        """
        store = EpisodeStore.open(path)
        store.spec.require_equal(
            spec,
            f"the spec of the store {store.path}",
            "the spec of what is being recorded",
            "Record into a new store, or with the settings this one was made with.",
        )
        writer = cls(store.path, spec)
        try:
            with locked_index(writer.path) as index:
                writer._sweep(index)
        except OSError as error:
            raise writer._failed(error) from error
        return writer

    def append(self, episode: Episode) -> EpisodeRecord:
        """Store one episode; it is complete, listed and on the disk when this returns.

        Raises SpecMismatch or StoreError for an episode that does not fit, before anything is
        written, and StoreError where the disk is full or fails; the store then holds exactly
        the episodes that were complete before.
        """
        arrays = checked_arrays(episode, self.spec)
        outcome: dict[str, Any] = {
            "length": len(episode.actions),
            "instruction": episode.instruction,
            "success": bool(episode.success),
            "seed": int(episode.seed),
            "digest": content_digest(episode, arrays),
        }
        try:
            with self._folder_aside() as aside:
                write_group(aside, outcome)
                for name, array in arrays.items():
                    write_array(aside / name, array)
                sync_tree(aside)
                with locked_index(self.path) as index:
                    return self._publish(aside, index, outcome)
        except OSError as error:
            raise self._failed(error) from error

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

    def _publish(self, aside: Path, index: LockedIndex, outcome: dict[str, Any]) -> EpisodeRecord:
        record = EpisodeRecord(id=index.next_id(), **outcome)
        final = self.path / EPISODES / record.id
        if final.exists():  # renamed by a writer that died before listing it
            shutil.rmtree(final)
        os.rename(aside, final)
        try:
            sync_folder(final.parent)
            index.append(record)
        except OSError:
            os.rename(final, aside)
            raise
        return record

    def _sweep(self, index: LockedIndex) -> None:
        listed = index.ids()
        for folder in (self.path / EPISODES).iterdir():
            # Renaming and listing happen under one lock, which is ours now: what has an
            # episode's name and is not listed is nobody's.
            unlisted = folder.name.startswith("episode_") and folder.name not in listed
            if unlisted or (folder.name.startswith(".tmp-") and _is_abandoned(folder)):
                shutil.rmtree(folder)

    def _failed(self, error: OSError) -> StoreError:
        try:
            complete = f"{len(read_index(self.path))} episodes there are complete and readable"
        except OSError:
            complete = "its list of episodes cannot be read either"
        remedy = (
            "Free space on that disk or raise the quota, then go on with the same store."
            if error.errno in _DISK_IS_FULL
            else "Mend that, then go on with the same store."
        )
        return StoreError(
            f"cannot write to the episode store {self.path}: {error.strerror}; {complete}. {remedy}"
        )


def _is_abandoned(folder: Path) -> bool:
    """Whether nobody holds the lock that a living writer holds on its folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
