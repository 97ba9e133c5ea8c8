"""Episodes, kept: a Zarr v3 group that any number of processes append to.

    STORE/zarr.json                  attributes: format, format_version, frames, spec, provenance
    STORE/episodes.jsonl, index/     the complete episodes; readers believe only this list
    STORE/episodes/<id>/             an episode (`episode_files`)

STORE is a folder (`local_store`), or an address of a bucket or server that fsspec knows, such as
s3://bucket/lift.zarr (`remote_store`); either can be copied to the other. Whatever stops a writer,
every episode that `append` returned for stays, and no half of another.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from loopdit.datasets.episode import ACTION, Episode, EpisodeRecord
from loopdit.datasets.episode_files import (
    encode_episode,
    extra_key,
    extra_tensors,
    metadata_in,
    read_attributes,
    tensors_of,
)
from loopdit.datasets.episode_index import INDEX
from loopdit.datasets.frame_codecs import JPEG, RAW, JpegFrames, check_frames
from loopdit.datasets.local_store import LocalFiles
from loopdit.datasets.remote_store import RemoteFiles, is_address
from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.store_files import EPISODES, StoreFiles
from loopdit.datasets.store_root import StoreRoot, check_names, check_provenance, parse_root
from loopdit.datasets.tensor_files import Damage, Read, Tensor, read_array, read_jpegs
from loopdit.datasets.zarr_files import METADATA, group_metadata
from loopdit.errors import StoreError

__all__ = ["ACTION", "Episode", "EpisodeRecord", "EpisodeStore", "EpisodeWriter"]

_Read = TypeVar("_Read")


@dataclass(frozen=True)
class EpisodeStore:
    """The episodes that were complete when the store was opened, in the order of their appending.

    `path` is a Path, or the text of an address. `provenance` says how the data was made, in the
    words of whoever made it (plain JSON). `frames` is how images are kept: raw, zstd or jpeg.
    """

    path: Path | str
    spec: PolicySpec
    provenance: dict[str, Any]
    episodes: list[EpisodeRecord]
    frames: str
    files: StoreFiles = field(repr=False)

    @classmethod
    def open(cls, path: str | Path) -> "EpisodeStore":
        """Read the spec and the list. Raises StoreError for a path that is missing, no episode
        store, of another format version or damaged, and SpecMismatch for a spec of another
        version."""
        files = files_at(path)
        root = read_root(files)
        return cls(files.path, root.spec, root.provenance, files.records(), root.frames, files)

    def arrays(self, index: int) -> dict[str, np.ndarray]:
        """One episode's observations and "action" (T, A), each (T, ...), read-only.

        What `is_plain` is a memory map, which holds one file descriptor as long as it lives
        (numpy's maps do), so thousands of them at once meet the process's limit; the rest is
        decoded. Raises StoreError for a missing, short or damaged file.
        """
        return self._read_all(index, self.tensors(index))

    def is_plain(self, name: str) -> bool:
        """Whether one tensor lies in files of plain bytes on a disk, which can be mapped."""
        return isinstance(self.path, Path) and self._tensor(name).encoding == RAW

    def file(self, index: int, name: str) -> Path:
        """The file that holds one tensor of one episode as plain little-endian C-order bytes.

        Only where `is_plain`; raises ValueError elsewhere.
        """
        if not isinstance(self.path, Path) or not self.is_plain(name):
            raise ValueError(f"{name} of {self.path} is not kept as a plain file")
        return self.path / EPISODES / self.episodes[index].id / self.tensors(index)[name].chunk()

    def decode(self, index: int, name: str, steps: Sequence[int] | None = None) -> np.ndarray:
        """One tensor (T, ...) of one episode, or its rows at `steps`, read-only.

        Of an encoded one, only what holds the chosen steps is decoded. Raises StoreError.
        """
        tensor = self.tensors(index)[name]
        return self._told(index, lambda read: read_array(read, tensor, steps))

    def extras(self, index: int, only: str = "") -> dict[str, np.ndarray]:
        """The arrays (T, ...) of one episode that its spec does not name, read-only: all of them,
        or `only` the one of that name, where there is such a one."""
        length = self.episodes[index].length
        tensors = self._told(index, lambda read: extra_tensors(read_attributes(read), length))
        if only:
            tensors = {key: one for key, one in tensors.items() if key == extra_key(only)}
        read = self._read_all(index, tensors)
        return {key.removeprefix(extra_key("")): array for key, array in read.items()}

    def metadata(self, index: int) -> dict[str, Any]:
        """What else is known of one episode, plain JSON."""
        return self._told(index, lambda read: metadata_in(read_attributes(read)))

    def episode(self, index: int) -> Episode:
        """All of one episode, decoded: what `append` was given, frames as close as `frames`
        keeps them."""
        arrays, record = self.arrays(index), self.episodes[index]
        return Episode(
            actions=arrays.pop(ACTION),
            observations=arrays,
            instruction=record.instruction,
            success=record.success,
            seed=record.seed,
            extras=self.extras(index),
            metadata=self.metadata(index),
        )

    def canonical_order(self) -> list[int]:
        """The indices of the episodes by seed, then content; those without a seed come last.

        Several collecting processes finish in any order; what is computed in this one depends
        on the data alone.
        """
        return sorted(
            range(len(self.episodes)),
            key=lambda i: (
                self.episodes[i].seed is None,
                self.episodes[i].seed or 0,
                self.episodes[i].digest,
            ),
        )

    def digest(self) -> str:
        """16 hex digits for the spec and the episodes' content, in whichever order appended."""
        parts = [self.spec.digest(), *sorted(record.digest for record in self.episodes)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def jpegs(self, index: int) -> dict[str, JpegFrames]:
        """The encoded frames of the cameras of one episode that are kept as JPEGs."""
        return {
            name: self._told(index, partial(read_jpegs, tensor=tensor))
            for name, tensor in self.tensors(index).items()
            if tensor.encoding == JPEG
        }

    def tensors(self, index: int) -> dict[str, Tensor]:
        """Shape, dtype and encoding of one episode's arrays."""
        return tensors_of(self.spec, self.frames, self.episodes[index].length)

    def read_of(self, index: int) -> Read:
        """What reads the files of one episode by their names below its folder."""
        folder = f"{EPISODES}/{self.episodes[index].id}"
        return lambda name: self.files.read(f"{folder}/{name}")

    def _tensor(self, name: str) -> Tensor:
        return tensors_of(self.spec, self.frames, 1)[name]

    def _read_all(self, index: int, tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        def read_one(tensor: Tensor) -> np.ndarray:
            return self._told(index, lambda read: read_array(read, tensor))

        if isinstance(self.path, Path):
            return {name: read_one(tensor) for name, tensor in tensors.items()}
        # Each file of an address costs a round trip: all at once cost about one.
        with ThreadPoolExecutor(max_workers=max(1, len(tensors))) as pool:
            return dict(zip(tensors, pool.map(read_one, tensors.values()), strict=True))

    def _told(self, index: int, reading: Callable[[Read], _Read]) -> _Read:
        """What `reading` returns, its Damage told as a StoreError."""
        try:
            return reading(self.read_of(index))
        except Damage as error:
            where = f"{self.path}/{EPISODES}/{self.episodes[index].id}"
            raise StoreError(
                f"{where}/{error}. Restore that file, or go on without its episode: "
                f"policy-data repair {self.path}."
            ) from error


@dataclass(frozen=True)
class EpisodeWriter:
    """Appends episodes to a store.

    It holds nothing open between two appends: it can be pickled to worker processes, and all of
    them may append at once.
    """

    root: StoreRoot
    files: StoreFiles = field(repr=False)

    @property
    def path(self) -> Path | str:
        """The store's: a Path, or the text of an address."""
        return self.files.path

    @property
    def spec(self) -> PolicySpec:
        """The store's."""
        return self.root.spec

    @classmethod
    def create(
        cls,
        path: str | Path,
        spec: PolicySpec,
        provenance: Mapping[str, Any],
        frames: str = RAW,
        jpeg_quality: int = 95,
    ) -> "EpisodeWriter":
        """Make an empty store, whole or not at all. Raises StoreError where something exists, and
        ConfigError for an unknown way to keep `frames`."""
        check_names(spec)
        check_frames(frames, jpeg_quality)
        root = StoreRoot(spec, check_provenance(provenance), frames, jpeg_quality)
        files = files_at(path)
        files.create(
            {
                f"{EPISODES}/{METADATA}": group_metadata({}),
                INDEX: b"",
                METADATA: group_metadata(root.to_attributes()),
            }
        )
        return cls(root, files)

    @classmethod
    def resume(cls, path: str | Path, spec: PolicySpec) -> "EpisodeWriter":
        """Go on with an existing store, and remove what killed writers left in it.

        Safe while other processes append. Raises what `EpisodeStore.open` raises, and
        SpecMismatch where `spec` is not the store's.
        """
        files = files_at(path)
        root = read_root(files)
        root.spec.require_equal(
            spec,
            f"the spec of the store {files.path}",
            "the spec of what is being recorded",
            "Record into a new store, or with the settings this one was made with.",
        )
        files.sweep()
        return cls(root, files)

    def append(self, episode: Episode) -> EpisodeRecord:
        """Store one episode; it is complete, listed and on the disk when this returns.

        Raises SpecMismatch or StoreError for an episode that does not fit, before anything is
        written, and StoreError where the disk is full or fails; the store then holds exactly
        the episodes that were complete before.
        """
        return self.files.commit(*encode_episode(episode, self.root))

    def copy(self, store: EpisodeStore, index: int) -> EpisodeRecord:
        """Append an episode of another store. From JPEGs to JPEGs the frames are copied as they
        are, whatever their quality; encoding them again would lose some of them each time."""
        jpegs = store.jpegs(index) if store.frames == self.root.frames == JPEG else {}
        return self.files.commit(*encode_episode(store.episode(index), self.root, jpegs))

    def drop(self, ids: Collection[str]) -> None:
        """Take episodes off the list, durably; their files go to `quarantine/`, where they can be
        looked at. Raises StoreError where that cannot be written."""
        self.files.drop(ids)


def files_at(path: str | Path) -> StoreFiles:
    """The files of the store at a path or an address."""
    if isinstance(path, str) and is_address(path):
        return RemoteFiles(path)
    return LocalFiles(Path(path).resolve())


def read_root(files: StoreFiles) -> StoreRoot:
    """What the root of a store says. Raises StoreError where there is no store, SpecMismatch for
    a spec of another version."""
    content = files.read(METADATA)
    if content is None and not files.exists():
        raise StoreError(
            f"there is no episode store at {files.path}. "
            f"Check the path, record one (policy-collect), or make one of other data "
            f"(policy-data convert)."
        )
    return parse_root(None if content is None else content.tobytes(), str(files.path))
