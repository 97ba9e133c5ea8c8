"""robomimic's HDF5 files, LIBERO's among them, and folders of such files: the format's four parts.

`robomimic_reader` says what is in such a file.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py

from loopdit.datasets.formats.foreign import ForeignData
from loopdit.datasets.formats.hdf5_files import is_hdf5, reading
from loopdit.datasets.formats.mapping import DataMapping, VectorPart
from loopdit.datasets.formats.robomimic_reader import LANGUAGE, NAME, RobomimicData
from loopdit.datasets.formats.robomimic_writer import write
from loopdit.errors import StoreError

__all__ = ["NAME", "export_mapping", "open", "recognizes", "write"]

_SUFFIXES = (".hdf5", ".h5")


def recognizes(path: Path) -> bool:
    """Whether the file, or the folder's first one, has a group `data` with groups in it."""
    files = _files(path)
    if not files or not is_hdf5(files[0]):
        return False
    try:
        with reading(files[0]) as file:
            data: Any = file.get("data")
            if not isinstance(data, h5py.Group):
                return False
            return any(isinstance(item, h5py.Group) for item in data.values())
    except StoreError:
        return path.is_file()  # HDF5 that is cut short: opening it says so


def open(path: Path) -> ForeignData:
    """One file, or every .hdf5 and .h5 file of a folder in the order of their names."""
    files = _files(path)
    if not files:
        raise StoreError(f"there is no .hdf5 or .h5 file at {path}. Check the path.")
    return RobomimicData.of_files(path, files)


def export_mapping(cameras: Sequence[str], extras: Sequence[str]) -> DataMapping:
    """Frames as `obs/<camera>_image`, which robomimic's configurations take for images."""
    del extras
    return DataMapping(
        cameras={camera: (f"obs/{camera}_image",) for camera in cameras},
        proprio=(VectorPart(("obs/proprio",)),),
        action=(VectorPart(("actions",)),),
        action_frame="",
        instruction=(LANGUAGE,),
        success=("success",),
        seed=("seed",),
    )


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path] if path.exists() else []
    return sorted(item for item in path.iterdir() if item.suffix in _SUFFIXES)
