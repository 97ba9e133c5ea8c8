"""Read RLDS episodes from TFRecord files: one record is one episode.

T steps. Keys are the paths below the steps ("observation/image_0", "action", "is_last"); what an
episode says of itself is metadata under its own path ("episode_metadata/file_path"). Knows nothing
of rates: RLDS has none.
"""

from collections import Counter
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from loopdit.datasets.formats.foreign import OURS, ForeignEpisode
from loopdit.datasets.formats.mapping import DataMapping
from loopdit.datasets.formats.plain_json import to_plain
from loopdit.datasets.formats.rlds_features import parse_features
from loopdit.datasets.formats.rlds_files import (
    DATASET_INFO,
    FEATURES,
    find_folder,
    find_shards,
    read_json,
)
from loopdit.datasets.formats.rlds_guess import guess_features, guess_mapping
from loopdit.datasets.formats.rlds_values import decoded
from loopdit.datasets.formats.tf_example import Feature, parse_example
from loopdit.datasets.formats.tfrecord import read_record
from loopdit.errors import StoreError

OUR_FILE = "loopdit.json"  # beside features.json: TFDS refuses unknown fields in its own files
SPLIT = "split"  # the key in an episode's metadata, where it is not the training split


class RldsData:
    """The records of a folder or a file. Implements `ForeignData`."""

    def __init__(self, path: Path) -> None:
        folder = find_folder(path)
        if folder is None:
            raise StoreError(
                f"{path} has no TFRecord files. Point at the folder with features.json."
            )
        self.path = path
        self._shards, self.notes = find_shards(path, folder)
        self._episodes = [(shard, i) for shard in self._shards for i in range(len(shard.places))]
        self._open: tuple[Path, BinaryIO] | None = None
        described = read_json(folder / FEATURES)
        self.facts: dict[str, Any] = {"features": described}
        self.facts |= {"dataset_info": read_json(folder / DATASET_INFO)}
        self.facts |= {OURS: ours} if (ours := read_json(folder / OUR_FILE)) else {}
        if described is None:
            if not self._episodes:
                raise StoreError(f"{path} has no records. Check the path.")
            self.features = guess_features(self._record(0)[1])
            self.notes.append(f"there is no {FEATURES}: shapes and types were guessed")
        else:
            try:
                self.features = parse_features(described)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                told = error if type(error) is ValueError else f"is damaged ({error!r:.100})"
                raise StoreError(
                    f"{folder / FEATURES} {told}. Write the data set again with TFDS 4.4 or "
                    f"later, or remove that file to have its features guessed."
                ) from error

    def __len__(self) -> int:
        return len(self._episodes)

    def episode(self, index: int) -> ForeignEpisode:
        """Read and decode one record."""
        where, record = self._record(index)
        length = self._length(where, record)
        steps: dict[str, np.ndarray] = {}
        texts: dict[str, tuple[str, ...]] = {}
        metadata: dict[str, Any] = {}
        for feature in self.features:
            if feature.path not in record:
                continue
            count = length if feature.is_step else 1
            try:
                values = decoded(feature, record[feature.path], count)
            except ValueError as error:
                raise StoreError(
                    f"{where}: {feature.key!r} {error}. "
                    f"Leave the episode out with skip_bad=true, or fetch the file again."
                ) from error
            if not feature.is_step:
                metadata[feature.key] = _plain(values)
            elif isinstance(values, np.ndarray):
                steps[feature.key] = values
            else:  # one text where all steps have the same; the writer repeats it
                texts[feature.key] = (values[0],) if len(set(values)) == 1 else tuple(values)
        split = self._episodes[index][0].split
        if split != "train":
            metadata[SPLIT] = split
        return ForeignEpisode(where, steps, texts, metadata)

    def suggested_mapping(self) -> DataMapping:
        """Cameras are the RGB images of the observation; the rest as Open-X names it."""
        return guess_mapping(self.features, self.path)

    def _record(self, index: int) -> tuple[str, dict[str, Feature]]:
        shard, number = self._episodes[index]
        where = f"{shard.path.name}, episode {number}"
        try:
            data = read_record(self._file(shard.path), shard.places[number])
        except OSError as error:
            raise StoreError(f"{where}: cannot be read: {error.strerror}. Try again.") from error
        if data is None:
            raise StoreError(
                f"{where}: the checksum of the record is wrong. Leave it out with skip_bad=true, "
                f"or fetch {shard.path} again."
            )
        try:
            return where, parse_example(data)
        except ValueError as error:
            raise StoreError(f"{where}: {error}. Leave it out with skip_bad=true.") from error

    def _file(self, path: Path) -> BinaryIO:
        if self._open is None or self._open[0] != path:
            if self._open is not None:
                self._open[1].close()
            self._open = (path, path.open("rb"))
        return self._open[1]

    def __del__(self) -> None:
        opened = getattr(self, "_open", None)
        if opened is not None:
            opened[1].close()

    def _length(self, where: str, record: Mapping[str, Feature]) -> int:
        """T: what most features of known size say, so that the odd one is the one that is named."""
        lengths: Counter[int] = Counter()
        for feature in self.features:
            values = record.get(feature.path)
            if values is None or not feature.is_step or None in feature.shape:
                continue
            each = 1 if isinstance(values, list) else prod(s or 0 for s in feature.shape)
            lengths[len(values) // max(each, 1)] += 1
        length = lengths.most_common(1)[0][0] if lengths else 0
        if length == 0:
            raise StoreError(f"{where}: it has no steps. Leave it out with skip_bad=true.")
        return length


def _plain(values: np.ndarray | list[str]) -> Any:
    """An episode's own value as plain JSON: a text, a number, or an array that keeps its dtype."""
    if isinstance(values, list):
        return values[0]
    value = values[0]
    if value.shape == () and value.dtype.kind in "biuf" and np.isfinite(value):
        return value.item()
    return to_plain(value)
