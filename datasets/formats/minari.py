"""Minari's data sets in HDF5, Arrow and Parquet: the format's four parts.

`minari_reader` says what is in such a set. Neither needs the package minari, nor gymnasium.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loopdit.datasets.formats.foreign import ForeignData
from loopdit.datasets.formats.mapping import DataMapping, VectorPart
from loopdit.datasets.formats.minari_reader import METADATA, NAME, MinariData
from loopdit.datasets.formats.minari_writer import write
from loopdit.errors import StoreError

__all__ = ["NAME", "export_mapping", "open", "recognizes", "write"]


def recognizes(path: Path) -> bool:
    """Whether the folder, or the folder `data` in it, has Minari's metadata.json."""
    return _metadata(path) is not None


def open(path: Path) -> ForeignData:
    """The folder of a data set's id, or the folder `data` in it."""
    found = _metadata(path)
    if found is None:
        raise StoreError(
            f"{path} is no Minari data set: there is no data/{METADATA} in it that counts "
            f"episodes. Check the path."
        )
    return MinariData.of(path, *found)


def export_mapping(cameras: Sequence[str], extras: Sequence[str]) -> DataMapping:
    """A dictionary of observations with a key for each camera; what else there is, as infos."""
    del extras
    return DataMapping(
        cameras={camera: (f"observations/{camera}",) for camera in cameras},
        proprio=(VectorPart(("observations/proprio",)),),
        action=(VectorPart(("actions",)),),
        action_frame="",
        instruction=("infos/instruction",),
        success=("success",),
        seed=("seed",),
    )


def _metadata(path: Path) -> tuple[Path, dict[str, Any]] | None:
    """The folder with the data, and its metadata."""
    for folder in (path / "data", path):
        try:
            metadata: Any = json.loads((folder / METADATA).read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(metadata, dict) and "total_episodes" in metadata:
            return folder, metadata
    return None
