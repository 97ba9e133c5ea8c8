"""Which files make an RLDS data set, and how many records each has.

TFDS lays them out as NAME/VERSION/NAME-SPLIT.tfrecord-00000-of-00008 beside features.json and
dataset_info.json; a folder with just the files, or one file, is read as well.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopdit.datasets.formats.tfrecord import looks_like_tfrecord, record_places
from loopdit.errors import StoreError

FEATURES = "features.json"
DATASET_INFO = "dataset_info.json"
_SHARD = re.compile(r"(?P<stem>.+)\.(?P<kind>tfrecords?)(-(?P<number>\d{5})-of-(?P<count>\d{5}))?")


@dataclass(frozen=True)
class Shard:
    """One file of a split, and the (offset, length) of each of its records."""

    path: Path
    split: str
    places: list[tuple[int, int]]


def find_folder(path: Path) -> Path | None:
    """The folder with the files below `path`, which may be NAME/, NAME/VERSION/ or a file's own;
    None where there are none. Raises StoreError where there are several versions."""
    if path.is_file():
        return path.parent if looks_like_tfrecord(path) else None
    if not path.is_dir():
        return None
    if _shard_files(path):
        return path
    versions = sorted(child for child in path.iterdir() if child.is_dir() and _shard_files(child))
    if len(versions) > 1:
        raise StoreError(
            f"{path} has several RLDS data sets: {', '.join(v.name for v in versions)}. "
            f"Name one of those folders."
        )
    return versions[0] if versions else None


def find_shards(path: Path, folder: Path) -> tuple[list[Shard], list[str]]:
    """The files in order, training split first, and what of the data set is not there.

    Raises StoreError for a file that is cut short, a shard that is missing, or a file with other
    records than dataset_info.json says.
    """
    files = [path] if path.is_file() else _shard_files(folder)
    if not path.is_file():
        _check_complete(files)
    shards = [Shard(file, _split(file), record_places(file)) for file in files]
    shards.sort(key=lambda shard: shard.split != "train")  # stable: shards stay in order
    notes: list[str] = []
    for name, lengths in _splits(folder / DATASET_INFO):
        mine = [shard for shard in shards if shard.split == name]
        if not mine:
            notes.append(f"{DATASET_INFO} tells of the split {name!r}, which is not there")
        elif len(mine) == len(lengths):
            for shard, length in zip(mine, lengths, strict=True):
                if len(shard.places) != length:
                    raise StoreError(
                        f"{shard.path} has {len(shard.places)} records, {DATASET_INFO} says "
                        f"{length}. Fetch the file again."
                    )
    return shards, notes


def _splits(file: Path) -> list[tuple[str, list[int]]]:
    """The name of each split, and how many records each of its files has."""
    try:
        return [
            (str(split.get("name")), [int(n) for n in split.get("shardLengths", [])])
            for split in (read_json(file) or {}).get("splits", [])
        ]
    except (AttributeError, TypeError, ValueError) as error:
        raise StoreError(
            f"{file} does not list its splits as TFDS does. Restore that file, or remove it."
        ) from error


def read_json(path: Path) -> Any:
    """A JSON file, None where there is none. Raises StoreError for one that is damaged."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot read {path}: {error}. Restore that file.") from error


def _shard_files(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if _SHARD.fullmatch(f.name) and f.is_file())


def _split(file: Path) -> str:
    """The part of the name behind its last "-": NAME-train.tfrecord-00000-of-00001."""
    found = _SHARD.fullmatch(file.name)
    stem = found["stem"] if found else file.stem
    return stem.rsplit("-", 1)[1] if "-" in stem else "train"


def _check_complete(files: list[Path]) -> None:
    """Every NAME-SPLIT of N shards has all N."""
    sets: dict[tuple[str, str, int], set[int]] = {}
    for file in files:
        found = _SHARD.fullmatch(file.name)
        if found and found["number"]:
            key = (found["stem"], found["kind"], int(found["count"]))
            sets.setdefault(key, set()).add(int(found["number"]))
    for (stem, kind, count), numbers in sets.items():
        missing = sorted(set(range(count)) - numbers)
        if missing:
            raise StoreError(
                f"{files[0].parent} lacks {stem}.{kind}-{missing[0]:05d}-of-{count:05d} "
                f"({len(missing)} of {count} shards are missing). Fetch it, or point at one file."
            )
