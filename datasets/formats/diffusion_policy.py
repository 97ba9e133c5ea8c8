"""Diffusion Policy's Zarr replay buffers, folders or zipped: the format's four parts.

`diffusion_policy_reader` says what is in such a buffer.
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path

from loopdit.datasets.formats.diffusion_policy_reader import NAME, ReplayBufferData
from loopdit.datasets.formats.diffusion_policy_writer import write
from loopdit.datasets.formats.foreign import ForeignData
from loopdit.datasets.formats.mapping import DataMapping, VectorPart
from loopdit.errors import StoreError

__all__ = ["NAME", "export_mapping", "open", "recognizes", "write"]

_ENDS = "meta/episode_ends/"
_MOST_METADATA = 1 << 26  # bytes of one file: a zip file of a megabyte can unfold to a gigabyte
_ARRAY_FILES = (".zarray", "zarr.json")  # of Zarr v2 and v3


def recognizes(path: Path) -> bool:
    """Whether the folder, a folder in it, or the zip file holds `meta/episode_ends`."""
    return _root(path) is not None or _is_cut_short(path)


def open(path: Path) -> ForeignData:
    """A buffer, a folder or zip file with one in it. Raises StoreError where there is none."""
    if _is_cut_short(path):
        raise StoreError(f"{path} is a zip file that is cut short. Fetch it again.")
    root = _root(path)
    if root is None:
        raise StoreError(
            f"{path} holds no replay buffer: there is no array {_ENDS[:-1]} in it. Check the path."
        )
    return ReplayBufferData.of(path, *root)


def export_mapping(cameras: Sequence[str], extras: Sequence[str]) -> DataMapping:
    """`img`, or `<camera>_rgb` of several; `state` and `action`, as in its Push-T set."""
    del extras
    names = {camera: "img" if len(cameras) == 1 else f"{camera}_rgb" for camera in cameras}
    return DataMapping(
        cameras={camera: (name,) for camera, name in names.items()},
        proprio=(VectorPart(("state",)),),
        action=(VectorPart(("action",)),),
        action_frame="",
        instruction=("instruction",),
        success=("success",),
        seed=("seed",),
    )


def _root(path: Path) -> tuple[Path, str] | None:
    """The folder or zip file with the buffer, and where in a zip file it is."""
    if path.is_file():
        return _root_in_zip(path)
    if not path.is_dir():
        return None
    for folder in (path, *sorted(item for item in path.iterdir() if item.is_dir())):
        if any((folder / _ENDS / name).exists() for name in _ARRAY_FILES):
            return folder, ""
    return None


def _is_metadata(name: str) -> bool:
    return name.rsplit("/", 1)[-1].startswith((".z", "zarr.json"))


def _is_cut_short(path: Path) -> bool:
    """Whether a file begins like a zip file and lacks the list of contents, which is at its end."""
    if path.suffix != ".zip" or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04" and not zipfile.is_zipfile(path)


def _root_in_zip(path: Path) -> tuple[Path, str] | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            sizes = [info.file_size for info in archive.infolist() if _is_metadata(info.filename)]
    except (OSError, zipfile.BadZipFile):
        return None
    if max(sizes, default=0) > _MOST_METADATA:
        raise StoreError(f"{path} has metadata of {max(sizes)} bytes, as no buffer has. Check it.")
    endings = tuple(_ENDS + name for name in _ARRAY_FILES)
    found = [name for name in names if f"/{name}".endswith(tuple(f"/{e}" for e in endings))]
    if not found:
        return None
    shortest = min(found, key=len)
    return path, shortest[: shortest.rindex(_ENDS)].rstrip("/")
