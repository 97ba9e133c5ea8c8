"""LeRobot data sets: version 3.0 read and written, 2.0 and 2.1 read.

Steps have LeRobot's own keys ("observation.images.top", "observation.state", "action"), the
instruction is the text "task", and the rate is the fps of meta/info.json. The parts are in the
modules lerobot_*; parquet is read by pyarrow, video by PyAV, pictures by Pillow.
"""

from collections.abc import Sequence
from pathlib import Path

from loopdit.datasets.formats import lerobot_mapping
from loopdit.datasets.formats.foreign import Export, ForeignData
from loopdit.datasets.formats.lerobot_info import read_info, says_lerobot
from loopdit.datasets.formats.lerobot_v21 import open_v21
from loopdit.datasets.formats.lerobot_v30 import open_v30
from loopdit.datasets.formats.lerobot_writer import write_lerobot
from loopdit.datasets.formats.mapping import DataMapping

NAME = "lerobot"


def recognizes(path: Path) -> bool:
    """Whether the folder has LeRobot's meta/info.json."""
    return says_lerobot(path)


def open(path: Path) -> ForeignData:
    """Open for reading. Raises StoreError for what is missing, damaged or of another version."""
    info = read_info(path)
    return open_v30(info) if info.version == "v3.0" else open_v21(info)


def write(path: Path, export: Export, codec: str = "auto") -> list[str]:
    """See `write_lerobot`."""
    return write_lerobot(path, export, codec)


def export_mapping(cameras: Sequence[str], extras: Sequence[str]) -> DataMapping:
    """Our names under LeRobot's; extras keep theirs."""
    return lerobot_mapping.export_mapping(cameras)
