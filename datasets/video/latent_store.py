"""The latents of clips, kept: what an autoencoder made of each, so that training never runs it.

    FOLDER/zarr.json                       attributes: format, format_version, made, latents
    FOLDER/<digest of an episode>/         a Zarr v3 array (clips, T, C, h, w) float16, one plain
                                           chunk, whose clips end at the episode's steps 0, n, 2 n

Zarr, beside the episode store and not in it: the store may be read-only or far away, and two
autoencoders have a folder each. An episode is known by the digest of its content, so episodes may
be added to the data, or several stores share a folder. Its array is written aside, synced and
renamed: it is there whole or not at all, and whoever was killed goes on where it stopped.

float16 keeps 11 bits of numbers of about unit size; what is lost is below 0.05 % of each.
"""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from loopdit.datasets.mixing import DataPart
from loopdit.datasets.step_vectors import StoredEpisode
from loopdit.datasets.video.clips import ClipConfig
from loopdit.datasets.zarr_files import METADATA, chunk_name, group_metadata, plain_files
from loopdit.errors import ConfigError, StoreError
from loopdit.whole_file import sync

FORMAT, VERSION = "loopdit-latents", 1
DTYPE = np.dtype("<f2")
_AXES = 5
_ASIDE = ".tmp-"
# What a difference is called in a message, and the option that makes it.
_SAID = {
    "vae": "autoencoder",
    "camera": "video.camera",
    "frames": "video.frames",
    "height": "video.height",
    "width": "video.width",
    "fit": "video.fit",
    "every": "video.every",
}


@dataclass(frozen=True)
class LatentKey:
    """What latents depend on besides the frames themselves. `vae` is the autoencoder's digest,
    `camera` the name of the tensor."""

    vae: str
    camera: str
    frames: int
    height: int
    width: int
    fit: str
    every: int

    @classmethod
    def of(cls, clips: ClipConfig, camera: str, vae: str) -> "LatentKey":
        """Of clips of one camera, by one autoencoder."""
        sizes = (clips.frames, clips.height, clips.width)
        return cls(vae, camera, *sizes, clips.fit, clips.every)


@dataclass(frozen=True)
class LatentStore:
    """A folder of latents (T, C, h, w) = `shape` of clips by one `key`."""

    folder: Path
    key: LatentKey
    shape: tuple[int, ...]

    @classmethod
    def at(cls, folder: Path, key: LatentKey, shape: Sequence[int]) -> "LatentStore":
        """The store in `folder`, made where there is none. Raises StoreError where it is of
        another autoencoder or of other clips, naming what differs, or cannot be written."""
        file = folder / METADATA
        if file.is_file():
            found = _read_root(file)
            _require_same(folder, found["made"], asdict(key))
            _require_same(folder, {"latents": found["latents"]}, {"latents": list(shape)})
        else:
            attributes = {
                "format": FORMAT,
                "format_version": VERSION,
                "made": asdict(key),
                "latents": list(shape),
            }
            _make_root(folder, attributes)
        return cls(folder, key, tuple(shape))

    def has(self, digest: str) -> bool:
        """Whether the latents of the episode of this content are there."""
        return self._array(digest).is_dir()

    def file(self, digest: str) -> Path:
        """The plain little-endian float16 numbers of one episode, (clips, T, C, h, w)."""
        return self._array(digest) / chunk_name(_AXES)

    def missing(self, parts: Iterable[DataPart]) -> list[StoredEpisode]:
        """The episodes that have no latents yet, each once, in canonical order."""
        found: dict[str, StoredEpisode] = {}
        for part in parts:
            for index in part.in_order():
                digest = part.store.episodes[index].digest
                if digest not in found and not self.has(digest):
                    found[digest] = (part.store, index)
        return list(found.values())

    def write(self, digest: str, latents: np.ndarray) -> None:
        """Keep the latents (clips, T, C, h, w) of one episode, whole or not at all.

        Raises StoreError for numbers that float16 cannot hold, or where the disk is full.
        """
        if latents.shape[1:] != self.shape:
            raise ValueError(f"latents {latents.shape[1:]} where {self.shape} were promised")
        with np.errstate(over="ignore"):
            kept = latents.astype(DTYPE)
        if not np.isfinite(kept).all():
            raise StoreError(
                f"the latents of the episode {digest} are not finite as float16: the autoencoder "
                f"{self.key.vae} made {np.abs(latents).max():g} of it. Check its weights, or leave "
                f"that episode out."
            )
        try:
            with tempfile.TemporaryDirectory(prefix=_ASIDE, dir=self.folder) as place:
                aside = Path(place, digest)
                aside.mkdir()
                for name, content in plain_files(kept).items():
                    (aside / name).write_bytes(content)
                    sync(aside / name)
                sync(aside)
                os.rename(aside, self._array(digest))
            sync(self.folder)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):  # another process was faster
                return
            raise _failed(self.folder, error) from error

    def sweep(self) -> None:
        """Remove what killed writers left. Only while no other process writes here."""
        for left in self.folder.glob(f"{_ASIDE}*"):
            shutil.rmtree(left, ignore_errors=True)

    def _array(self, digest: str) -> Path:
        return self.folder / digest


def latent_folder(chosen: str, parts: Sequence[DataPart]) -> Path:
    """Where latents are kept: as chosen, or beside the first store. Raises ConfigError for a store
    at an address, beside which nothing can be mapped."""
    if chosen:
        return Path(chosen)
    beside = parts[0].store.path
    if isinstance(beside, Path):
        return beside.with_name(f"{beside.stem}.latents")
    raise ConfigError(
        f"{beside} is no local folder that latents could be kept beside. Name one with "
        f"latents=FOLDER."
    )


def _make_root(folder: Path, attributes: dict[str, Any]) -> None:
    """A group without arrays. Renamed as a whole: of two that begin at once, one makes it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        others = [name.name for name in folder.iterdir() if not name.name.startswith(_ASIDE)]
        if others:
            raise StoreError(
                f"{folder} has {others[0]} in it and is no folder of latents. Name another one "
                f"with latents=FOLDER."
            )
        with tempfile.NamedTemporaryFile(prefix=_ASIDE, dir=folder, delete=False) as file:
            file.write(group_metadata(attributes))
            file.flush()
            os.fsync(file.fileno())
        aside = Path(file.name)
        aside.chmod(0o644)
        aside.replace(folder / METADATA)
        sync(folder)
    except OSError as error:
        raise _failed(folder, error) from error


def _read_root(file: Path) -> dict[str, Any]:
    try:
        attributes: Any = json.loads(file.read_bytes())["attributes"]
        version = attributes["format_version"] if attributes["format"] == FORMAT else None
        if version == VERSION and set(attributes["made"]) == {f.name for f in fields(LatentKey)}:
            return attributes
    except (OSError, ValueError, KeyError, TypeError):
        version = None
    found = f"latents of version {version}, where {VERSION} is read" if version else "no latents"
    raise StoreError(
        f"{file.parent} holds {found}. Name another folder with latents=FOLDER; latents are "
        f"made again from the episodes."
    )


def _require_same(folder: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    differing = [
        f"{_SAID.get(name, name)} {found[name]} (this training's is {value})"
        for name, value in wanted.items()
        if found[name] != value
    ]
    if differing:
        raise StoreError(
            f"{folder} holds latents that were made with {', '.join(differing)}. Train as they "
            f"were made, or name another folder with latents=FOLDER."
        )


def _failed(folder: Path, error: OSError) -> StoreError:
    return StoreError(
        f"cannot write latents to {folder}: {error.strerror}. Free space there, or name another "
        f"folder with latents=FOLDER."
    )
