"""Read the episodes of a LeRobot data set, of version 3.0 or 2.x, one at a time.

T steps. A `LeRobotEpisode` says where the rows and the frames of an episode are; how that is
listed differs between the versions (`lerobot_v30`, `lerobot_v21`), what is read there does not.
Columns that count (frame_index, index, ...) are checked and not passed on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from loopdit.datasets.formats import lerobot_columns as columns
from loopdit.datasets.formats.foreign import OURS, ForeignEpisode
from loopdit.datasets.formats.lerobot_info import COUNTERS, TIMESTAMP, Feature, Info
from loopdit.datasets.formats.lerobot_mapping import suggested_mapping
from loopdit.datasets.formats.mapping import DataMapping
from loopdit.datasets.formats.video import read_frames
from loopdit.errors import StoreError

TASK = "task"  # the text that LeRobot's items have their instruction under
_TASK_INDEX = "task_index"
_RATE_TOLERANCE = 0.1


@dataclass(frozen=True)
class VideoSpan:
    """Where an episode's frames are in a file, seconds; to the end of the file if stop is None."""

    file: Path
    start_s: float = 0.0
    stop_s: float | None = None


@dataclass(frozen=True)
class LeRobotEpisode:
    """One episode's number, and where its rows and frames are. `row` counts within the file.

    `alone` is true where the file must hold nothing else.
    """

    number: int
    length: int
    file: Path
    row: int
    videos: Mapping[str, VideoSpan]
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    alone: bool = False


def require_once(numbers: Sequence[int], place: Path) -> None:
    """Raise StoreError where an episode is listed twice: `numbers` in rising order."""
    twice = next((one for one, two in pairwise(numbers) if one == two), None)
    if twice is not None:
        raise StoreError(f"{place} lists episode {twice} twice. Restore that list.")


class LeRobotData:
    """A data set opened for reading; keeps the parquet file of the last episode open."""

    def __init__(
        self,
        info: Info,
        episodes: Sequence[LeRobotEpisode],
        tasks: Mapping[int, str],
        ours: Mapping[str, Any],
    ) -> None:
        self._info = info
        self._episodes = episodes
        self._tasks = tasks
        self._ours = ours
        self._rows: columns.ParquetRows | None = None

    @property
    def path(self) -> Path:
        """The folder it was opened from."""
        return self._info.root

    @property
    def facts(self) -> Mapping[str, Any]:
        """info.json as it is."""
        return {**self._info.raw, **({OURS: dict(self._ours)} if self._ours else {})}

    @property
    def notes(self) -> Sequence[str]:
        """Why which of the features is not read."""
        return [f"{key} is not read: {reason}" for key, reason in self._info.left_out.items()]

    def __len__(self) -> int:
        """How many episodes there are."""
        return len(self._episodes)

    def suggested_mapping(self) -> DataMapping:
        """By LeRobot's names of features. Raises ConfigError where there is no action or state."""
        return suggested_mapping(self._info)

    def episode(self, index: int) -> ForeignEpisode:
        """One episode, whole. Raises StoreError naming file, episode and key."""
        said = self._episodes[index]
        where = f"{said.file}, episode {said.number}"
        info = self._info
        stored = [f for f in info.features.values() if f.dtype != "video"]
        # An index of tasks is in every version, and a feature in most info.json only.
        names = list(dict.fromkeys([*(f.key for f in stored), _TASK_INDEX]))
        rows = self._open(said.file)
        if said.alone and rows.count != said.length:
            raise StoreError(
                f"{where}: the file has {rows.count} steps, {self.path / 'meta'} says "
                f"{said.length}. Restore that file, or leave the episode out with skip_bad=true."
            )
        table = rows.read(said.row, said.row + said.length, names)
        self._check_counters(table, said, where)
        steps: dict[str, np.ndarray] = {}
        texts: dict[str, tuple[str, ...]] = {TASK: self._instructions(table, where)}
        for feature in stored:
            column = table.column(feature.key)
            if feature.dtype == "string":
                texts[feature.key] = columns.texts(column, where, feature.key)
            elif feature.dtype == "image":
                steps[feature.key] = columns.pictures(column, where, feature.key)
            elif feature.key not in COUNTERS:
                steps[feature.key] = columns.numbers(column, feature, where)
        self._check_rate(steps.get(TIMESTAMP), where)
        for key, span in said.videos.items():
            steps[key] = read_frames(
                span.file,
                f"{self.path}, episode {said.number}, {key}",
                said.length,
                info.rate_hz,
                span.start_s,
                span.stop_s,
            )
        return ForeignEpisode(where, steps, texts, said.metadata)

    def _open(self, file: Path) -> columns.ParquetRows:
        if self._rows is None or self._rows.path != file:
            if self._rows is not None:
                self._rows.close()
                self._rows = None
            self._rows = columns.ParquetRows(file)
        return self._rows

    def _check_counters(self, table: Any, said: LeRobotEpisode, where: str) -> None:
        """The rows must be the episode's, from its first step to its last."""
        wanted = {
            "episode_index": np.full(said.length, said.number),
            "frame_index": np.arange(said.length),
        }
        for key, values in wanted.items():
            if key not in table.column_names:
                continue
            found = columns.numbers(table.column(key), Feature(key, "int64", ()), where)
            wrong = np.flatnonzero(found != values)
            if len(wrong):
                raise StoreError(
                    f"{where}: row {said.row + wrong[0]} has {key} {found[wrong[0]]} instead of "
                    f"{values[wrong[0]]}. The data set's list of episodes does not fit the file."
                )

    def _check_rate(self, times: np.ndarray | None, where: str) -> None:
        """LeRobot's own reader wants steps 1 / fps apart, to the tenth of a millisecond; here it
        must be clear only that the rate is not another one."""
        if times is None or times.ndim != 1 or len(times) < 2:
            return
        period, said = float(np.median(np.diff(times))), 1.0 / self._info.rate_hz
        if not abs(period - said) <= _RATE_TOLERANCE * said:
            raise StoreError(
                f"{where}: {TIMESTAMP} rises by {period:.6g} s a step, and {self._info.file} says "
                f"fps={self._info.rate_hz:g}. Correct it there."
            )

    def _instructions(self, table: Any, where: str) -> tuple[str, ...]:
        found = columns.numbers(table.column(_TASK_INDEX), Feature(_TASK_INDEX, "int64", ()), where)
        unknown = sorted({int(i) for i in found} - set(self._tasks))
        if unknown:
            raise StoreError(
                f"{where}: task_index {unknown[0]} is in none of the {len(self._tasks)} tasks of "
                f"{self.path / 'meta'}. Restore its file of tasks."
            )
        texts = tuple(self._tasks[int(i)] for i in found)
        return texts[:1] if len(set(texts)) == 1 else texts
