"""RLDS: the episodes of Bridge, Open X-Embodiment and TFDS, in TFRecord files. A `Format`."""

from collections.abc import Sequence
from pathlib import Path

from loopdit.datasets.formats.foreign import Export, ForeignData
from loopdit.datasets.formats.mapping import DataMapping, VectorPart
from loopdit.datasets.formats.rlds_files import find_folder
from loopdit.datasets.formats.rlds_reader import RldsData
from loopdit.datasets.formats.rlds_writer import RLDS_STEP, write_rlds
from loopdit.errors import StoreError

NAME = "rlds"


def recognizes(path: Path) -> bool:
    """Whether TFRecord files are there, or in the one folder below."""
    try:
        return find_folder(path) is not None
    except StoreError:  # several versions: opening it says so
        return True


def open(path: Path) -> ForeignData:
    """Open a file, a folder of shards, or NAME/VERSION/ or NAME/ of TFDS."""
    return RldsData(path)


def write(path: Path, export: Export) -> list[str]:
    """Write NAME/VERSION/ as TFDS does."""
    return write_rlds(path, export)


def export_mapping(cameras: Sequence[str], extras: Sequence[str]) -> DataMapping:
    """The names of Bridge and Open-X. What the writer adds to each step is dropped again on
    reading, unless it was an extra."""
    return DataMapping(
        cameras={camera: (f"observation/{camera}",) for camera in cameras},
        proprio=(VectorPart(("observation/state",)),),
        action=(VectorPart(("action",)),),
        action_frame="",
        instruction=("language_instruction",),
        success=("episode_metadata/success",),
        seed=("episode_metadata/seed",),
        drop=tuple(key for key in RLDS_STEP if key not in extras),
    )
