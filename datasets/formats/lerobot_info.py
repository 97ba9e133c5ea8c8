"""meta/info.json of a LeRobot data set: what it says, checked, and where it says files are.

The file comes from strangers: its path templates may name files of the data set's folder only.
Nothing here opens any other file.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from string import Formatter
from typing import Any

from loopdit.errors import StoreError

INFO = "meta/info.json"
CODECS = ("auto", "av1", "h264", "png")  # of frames that are written
READABLE = ("v2.0", "v2.1", "v3.0")
# Columns that count steps and episodes: they follow from the order of the rows.
COUNTERS = ("frame_index", "episode_index", "index", "task_index")
TIMESTAMP = "timestamp"
_NUMBERS = re.compile(r"(bool|u?int(8|16|32|64)|float(16|32|64))$")


@dataclass(frozen=True)
class Feature:
    """One key of a step. `dtype` is numpy's, or "video", "image" or "string"; `shape` a step's.

    `labels` name the elements of a vector, empty where the names are something else.
    """

    key: str
    dtype: str
    shape: tuple[int, ...]
    labels: tuple[str, ...] = ()

    @property
    def is_camera(self) -> bool:
        """Whether a step of it is a picture."""
        return self.dtype in ("video", "image")


@dataclass(frozen=True)
class Info:
    """`left_out` has the reason for each key that cannot be read here; `raw` is the whole file."""

    root: Path
    version: str
    rate_hz: float
    features: Mapping[str, Feature]
    left_out: Mapping[str, str]
    raw: Mapping[str, Any]

    @property
    def file(self) -> Path:
        """Where all of this was read."""
        return self.root / INFO

    def path(self, template_key: str, **fields: int | str) -> Path:
        """The file that the template `data_path` or `video_path` names.

        Raises StoreError for a template that has other fields, or leads out of the folder.
        """
        template = self.raw.get(template_key)
        refused = StoreError(
            f"{self.file}: {template_key}={template!r} does not name a file of this folder by "
            f"{', '.join(fields)}. Correct it there."
        )
        if not isinstance(template, str):
            raise refused
        name = ""
        try:
            parts = list(Formatter().parse(template))
        except ValueError as error:
            raise refused from error
        for literal, field, layout, conversion in parts:
            name += literal
            if field is None:
                continue
            # Not str.format: a field may be an attribute, and a width may be a gigabyte.
            if field not in fields or conversion or not re.fullmatch(r"(0?\d?d?)?", layout or ""):
                raise refused
            name += format(fields[field], layout or "")
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts or "\0" in name or not pure.parts:
            raise refused
        return self.root / pure


def says_lerobot(root: Path) -> bool:
    """Whether the folder has an info.json of LeRobot's. Reads its beginning only."""
    try:
        with (root / INFO).open("rb") as file:
            return b'"codebase_version"' in file.read(1 << 16)
    except OSError:
        return False


def read_info(root: Path) -> Info:
    """Read and check the file. Raises StoreError naming what is missing, wrong or too new."""
    file = root / INFO
    try:
        raw: Any = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise StoreError(
            f"cannot read {file}: {error}. Point at the folder of a LeRobot data set."
        ) from error
    if not isinstance(raw, dict) or not isinstance(raw.get("features"), dict):
        raise StoreError(f"{file} has no features. Restore that file.")
    version = raw.get("codebase_version")
    if version not in READABLE:
        raise StoreError(
            f"{file} says codebase_version {version!r}; this loopdit reads {', '.join(READABLE)}. "
            f"Convert it with LeRobot's own scripts first."
        )
    if raw.get("storage_format", "parquet") != "parquet":
        raise StoreError(
            f"{file} says storage_format {raw['storage_format']!r}; this loopdit reads parquet. "
            f"Export it from LeRobot as parquet first."
        )
    rate = raw.get("fps")
    if not isinstance(rate, int | float) or isinstance(rate, bool) or not 0 < rate < 1e6:
        raise StoreError(f"{file}: fps={rate!r:.60} is no rate in Hz. Correct it there.")
    features: dict[str, Feature] = {}
    left_out: dict[str, str] = {}
    for key, said in raw["features"].items():
        reason = _unreadable(said)
        if reason:
            left_out[key] = reason
        else:
            features[key] = _feature(key, said)
    return Info(root, str(version), float(rate), features, left_out, raw)


def _unreadable(said: Any) -> str:
    """Why a feature cannot be read, empty if it can."""
    if not isinstance(said, dict) or not isinstance(said.get("dtype"), str):
        return "it has no dtype"
    shape: Any = said.get("shape", ())
    if not isinstance(shape, list | tuple) or not all(type(n) is int and n > 0 for n in shape):
        return f"its shape {shape!r} is none"
    dtype = said["dtype"]
    details: Any = said.get("info") or said.get("video_info") or {}
    if dtype == "video" and isinstance(details, dict) and details.get("video.is_depth_map"):
        return "it is a depth video"
    if dtype not in ("video", "image", "string") and not _NUMBERS.match(dtype):
        return f"its dtype {dtype!r} is unknown"
    return ""


def _feature(key: str, said: Mapping[str, Any]) -> Feature:
    shape = tuple(said.get("shape", ()))
    labels = _flat_names(said.get("names"))
    vector = said["dtype"] not in ("video", "image", "string") and len(shape) == 1
    return Feature(key, said["dtype"], shape, labels if vector and len(labels) == shape[0] else ())


def _flat_names(names: Any) -> tuple[str, ...]:
    """["x", "y"] as it is, {"motors": ["x", "y"]} and [["x", "y"]] without what is around it."""
    if isinstance(names, dict):
        return tuple(name for value in names.values() for name in _flat_names(value))
    if isinstance(names, list):
        return tuple(name for value in names for name in _flat_names(value))
    return (names,) if isinstance(names, str) else ()
