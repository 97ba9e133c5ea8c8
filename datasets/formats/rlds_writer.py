"""Write RLDS episodes as TFDS lays them out: TFRecord shards, features.json, dataset_info.json.

T steps. A data set that came from RLDS keeps its features; any other gets those of its keys, and
what RLDS users rely on where it lacks them: is_first, is_last, is_terminal, reward (1 at the end of
a success, 0 elsewhere) and discount. Frames become PNG, so that no pixel changes.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from loopdit.datasets.formats.foreign import Export, ForeignEpisode
from loopdit.datasets.formats.new_target import new_target
from loopdit.datasets.formats.plain_json import from_plain
from loopdit.datasets.formats.rlds_features import (
    IMAGE,
    STEPS,
    TENSOR,
    TEXT,
    RldsFeature,
    features_json,
    parse_features,
)
from loopdit.datasets.formats.rlds_files import DATASET_INFO, FEATURES
from loopdit.datasets.formats.rlds_reader import OUR_FILE, SPLIT
from loopdit.datasets.formats.rlds_values import encoded, tensor_feature
from loopdit.datasets.formats.tf_example import Feature, serialize_example
from loopdit.datasets.formats.tfrecord import write_record
from loopdit.errors import StoreError

VERSION = "1.0.0"
SHARD_BYTES = 256 * 1024 * 1024
# What every RLDS step has, and the writer adds.
RLDS_STEP = ("is_first", "is_last", "is_terminal", "reward", "discount")


def write_rlds(path: Path, export: Export) -> list[str]:
    """Write `path`/1.0.0/ with everything. What could not be held, one phrase each.

    Raises StoreError where something exists, the disk is full, or an episode does not have the
    keys of the first.
    """
    name = _dataset_name(path)
    lost: list[str] = []
    with new_target(path) as made, ExitStack() as stack:
        folder = made / VERSION
        folder.mkdir(parents=True)
        features: list[RldsFeature] | None = None
        splits: dict[str, _Split] = {}
        for episode in export.episodes:
            episode = _with_rlds_steps(episode)
            if features is None:
                features, lost = _features(episode, export)
            record, missing = _record(features, episode)
            lost += missing
            split = str(episode.metadata.get(SPLIT, "train"))
            if split not in splits:
                splits[split] = _Split(folder, f"{name}-{split}", stack)
            splits[split].add(record)
        stack.close()
        for split in splits.values():
            split.finish()
        _write_json(folder / FEATURES, features_json(features or []))
        _write_json(folder / DATASET_INFO, _info(name, splits, export.facts))
        if export.ours:
            _write_json(folder / OUR_FILE, export.ours)
    return lost


@dataclass
class _Split:
    """The growing shards of one split; how many there are, and so their names, is known last."""

    folder: Path
    stem: str
    stack: ExitStack
    lengths: list[int] = field(default_factory=list[int])
    bytes_written: int = 0
    _file: BinaryIO | None = None

    def add(self, record: bytes) -> None:
        if self._file is None or self._file.tell() + len(record) > SHARD_BYTES:
            if self._file is not None:
                self._file.close()
            shard = self._path(len(self.lengths))
            self._file = self.stack.enter_context(shard.open("xb"))
            self.lengths.append(0)
        write_record(self._file, record)
        self.lengths[-1] += 1
        self.bytes_written += len(record)

    def finish(self) -> None:
        count = len(self.lengths)
        for number in range(count):
            final = f"{self.stem}.tfrecord-{number:05d}-of-{count:05d}"
            self._path(number).rename(self.folder / final)

    def _path(self, number: int) -> Path:
        return self.folder / f"{self.stem}.{number}.part"


def _dataset_name(path: Path) -> str:
    """TFDS wants an identifier."""
    word = "".join(char if char.isalnum() and char.isascii() else "_" for char in path.stem.lower())
    return word if word[:1].isalpha() else f"data_{word}"


def _with_rlds_steps(episode: ForeignEpisode) -> ForeignEpisode:
    length = len(next(iter(episode.steps.values())))
    last = np.arange(length) == length - 1
    success = any(
        value is True for key, value in episode.metadata.items() if key.endswith("success")
    )
    added = {
        "is_first": np.arange(length) == 0,
        "is_last": last,
        "is_terminal": last,
        "reward": (last & success).astype(np.float32),
        "discount": np.ones(length, np.float32),
    }
    return replace(episode, steps={**added, **episode.steps})


def _features(first: ForeignEpisode, export: Export) -> tuple[list[RldsFeature], list[str]]:
    """The former features where there are any, and one for each key that they lack."""
    former = export.facts.get("features")
    given = {*first.steps, *first.texts, *first.metadata}
    kept = [f for f in (parse_features(former) if former else []) if f.key in given]
    lost = [
        f"the JPEG bytes of {feature.key!r}: its frames are PNG now, with the same pixels"
        for feature in kept
        if feature.encoding == "jpeg"
    ]
    features = [replace(f, encoding="png") if f.encoding == "jpeg" else f for f in kept]
    known = {feature.key for feature in features}
    for key, values in first.steps.items():
        if key not in known:
            path, shape = STEPS + key, tuple(values.shape[1:])
            features.append(
                RldsFeature(path, IMAGE, shape, "uint8", "png")
                if key in export.images and values.dtype == np.uint8
                else tensor_feature(path, shape, values.dtype)
            )
    features += [RldsFeature(STEPS + key, TEXT) for key in first.texts if key not in known]
    for key, value in first.metadata.items():
        if key not in known and key != SPLIT:
            features.append(_metadata_feature(key, value))
            if not isinstance(value, str | bool | int | float):
                lost.append(f"the structure of {key!r}, which is JSON in a text now")
    return features, lost


def _metadata_feature(key: str, value: Any) -> RldsFeature:
    """A number, or a text; what is neither becomes a text of JSON."""
    if isinstance(value, bool):
        return RldsFeature(key, TENSOR, (), "bool", "none")
    if isinstance(value, int) and abs(value) < 2**63:
        return RldsFeature(key, TENSOR, (), "int64", "none")
    if isinstance(value, float):
        return RldsFeature(key, TENSOR, (), "float64", "bytes")
    return RldsFeature(key, TEXT)


def _record(features: Sequence[RldsFeature], episode: ForeignEpisode) -> tuple[bytes, list[str]]:
    """The record, and what of the episode is not in it."""
    length = len(next(iter(episode.steps.values())))
    record: dict[str, Feature] = {}
    for feature in features:
        if not feature.is_step:
            if episode.metadata.get(feature.key) is not None:
                record[feature.path] = _metadata_value(feature, episode)
        elif feature.key in episode.texts:
            texts = episode.texts[feature.key]
            record[feature.path] = encoded(feature, texts * length if len(texts) == 1 else texts)
        elif feature.key in episode.steps:
            values = episode.steps[feature.key]
            _check_fits(feature, values, episode.where)
            record[feature.path] = encoded(feature, values)
        else:
            raise StoreError(
                f"{episode.where} lacks {feature.key!r}, which the first episode has; RLDS steps "
                f"are all alike. Convert that episode by itself (policy-data split)."
            )
    known = {feature.key for feature in features}
    for key in (*episode.steps, *episode.texts):
        if key not in known:
            raise StoreError(
                f"{episode.where} has {key!r}, which the first episode lacks; RLDS steps are all "
                f"alike. Convert that episode by itself (policy-data split)."
            )
    lost = [
        f"{key!r} of {episode.where}, which the first episode lacks"
        for key, value in episode.metadata.items()
        if key not in known and key != SPLIT and value is not None
    ]
    return serialize_example(record), lost


def _metadata_value(feature: RldsFeature, episode: ForeignEpisode) -> Feature:
    value = episode.metadata[feature.key]
    if feature.kind == TEXT:
        return encoded(feature, [value if isinstance(value, str) else json.dumps(value)])
    array = np.asarray(from_plain(value))
    if array.dtype.kind not in "biufc":
        raise StoreError(
            f"{episode.where}: {feature.key!r} is {value!r:.40} where the first episode has a "
            f"{feature.dtype}. Convert that episode by itself (policy-data split)."
        )
    return encoded(feature, array.astype(feature.dtype)[None])


def _check_fits(feature: RldsFeature, values: np.ndarray, where: str) -> None:
    sizes = zip(values.shape[1:], feature.shape, strict=False)
    alike = all(wanted in (None, size) for size, wanted in sizes)
    if values.ndim != len(feature.shape) + 1 or not alike or values.dtype.name != feature.dtype:
        raise StoreError(
            f"{where}: {feature.key!r} has shape {values.shape[1:]} a step and dtype "
            f"{values.dtype}, the first episode {feature.shape} and {feature.dtype}; RLDS steps "
            f"are all alike. Convert that episode by itself (policy-data split)."
        )


def _info(name: str, splits: Mapping[str, _Split], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The contents of dataset_info.json, the former description and citation kept."""
    former: Mapping[str, Any] = facts.get("dataset_info") or {}
    return {
        **{key: former[key] for key in ("citation", "description") if key in former},
        "fileFormat": "tfrecord",
        "name": name,
        "version": VERSION,
        "releaseNotes": {VERSION: "Written by loopdit."},
        "splits": [
            {
                "name": split,
                "numBytes": str(shards.bytes_written),
                "shardLengths": [str(length) for length in shards.lengths],
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            }
            for split, shards in splits.items()
        ],
    }


def _write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n")
