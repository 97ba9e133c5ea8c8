"""Write a LeRobot v3.0 data set that LeRobot's own reader opens.

A row group for each episode, parquet files of about 100 MB, videos of about 200 MB, as LeRobot
makes them. One episode is in memory at a time, and the folder does not exist until all is complete.
The layout is described in `lerobot_v30`.
"""

import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from loopdit.datasets.formats.foreign import Export, ForeignEpisode
from loopdit.datasets.formats.lerobot_columns import numbers_column, pictures_column
from loopdit.datasets.formats.lerobot_features import Plan, is_regular, plan
from loopdit.datasets.formats.lerobot_info import CODECS, INFO, TIMESTAMP
from loopdit.datasets.formats.lerobot_reader import TASK
from loopdit.datasets.formats.lerobot_stats import Stats, camera_stats, joined_stats, number_stats
from loopdit.datasets.formats.lerobot_tables import EpisodesTable, write_tasks
from loopdit.datasets.formats.lerobot_v30 import METADATA, OUR_FILE
from loopdit.datasets.formats.new_target import new_target
from loopdit.datasets.formats.video import VideoEncoder, can_encode, video_info
from loopdit.errors import ConfigError, StoreError

_FILES_IN_CHUNK = 1000
_DATA_MB, _VIDEO_MB = 100, 200
_DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"


def write_lerobot(path: Path, export: Export, codec: str = "auto") -> list[str]:
    """Write the export as a new folder `path`; what LeRobot could not hold, one phrase each.

    `codec` is "av1" (LeRobot's own default), "h264", "png" (lossless, many times larger), or
    "auto": as the data set had it if it came from LeRobot, AV1 otherwise, H.264 where PyAV has
    no AV1. Raises StoreError where something exists, for episodes that are not alike, and for a
    full disk; nothing is left behind then.
    """
    if codec not in CODECS:
        raise ConfigError(f"codec={codec} is unknown. Choose one of: {', '.join(CODECS)}.")
    with new_target(path) as folder:
        first = next(export.episodes, None)
        if first is None:
            raise StoreError(f"there is no episode to write to {path}. LeRobot reads no empty set.")
        layout = plan(export, first, codec)
        with _writing(folder, export, layout, _video_codec(codec, layout)) as writer:
            for episode in chain([first], export.episodes):
                layout.require_same(first, episode)
                writer.add(episode)
            return [*layout.phrases, *writer.finish()]


def _video_codec(codec: str, layout: Plan) -> str:
    """Which of them PyAV can encode here. Raises StoreError where it cannot at all."""
    chosen = "h264" if codec == "h264" or (codec == "auto" and not can_encode("av1")) else "av1"
    if layout.as_video and not can_encode(chosen):
        raise StoreError(f"PyAV has no encoder for {chosen} here. Write frames as codec=png.")
    for name in layout.as_video:
        height, width = layout.features[name]["shape"][:2]
        if chosen == "h264" and (height % 2 or width % 2):
            raise StoreError(
                f"{name} is {width}x{height}; H.264 needs even sizes. Write it as codec=av1 or png."
            )
    return chosen


@contextmanager
def _writing(folder: Path, export: Export, layout: Plan, codec: str) -> Generator["_Writer"]:
    writer = _Writer(folder, export, layout, codec)
    try:
        yield writer
    finally:
        writer.abandon()


class _Camera:
    """The videos of one camera, one after the other."""

    def __init__(self, folder: Path, key: str, codec: str, rate: Fraction) -> None:
        self.key, self._folder, self._codec, self._rate = key, folder, codec, rate
        self.encoder: VideoEncoder | None = None
        self._number = -1
        self.first: VideoEncoder | None = None

    def add(self, frames: np.ndarray) -> dict[str, Any]:
        """Append an episode's frames; the columns of meta/episodes that tell where they are."""
        if self.encoder is None or self.encoder.bytes_written() >= _VIDEO_MB << 20:
            self.close()
            self._number += 1
            file = self._folder / _VIDEO.format(video_key=self.key, **self._place())
            file.parent.mkdir(parents=True, exist_ok=True)
            self.encoder = VideoEncoder(file, self._codec, self._rate)
            self.first = self.first or self.encoder
        start = self.encoder.frames
        self.encoder.add(frames)
        said = {
            **self._place(),
            "from_timestamp": float(start / self._rate),
            "to_timestamp": float(self.encoder.frames / self._rate),
        }
        return {f"videos/{self.key}/{name}": value for name, value in said.items()}

    def close(self) -> None:
        if self.encoder is not None:
            self.encoder.close()

    def abandon(self) -> None:
        if self.encoder is not None:
            self.encoder.abandon()

    def _place(self) -> dict[str, int]:
        chunk, number = divmod(self._number, _FILES_IN_CHUNK)
        return {"chunk_index": chunk, "file_index": number}


class _Writer:
    """The folder being written: `add` each episode, then `finish`; `abandon` closes all files."""

    def __init__(self, folder: Path, export: Export, layout: Plan, codec: str) -> None:
        self._folder, self._export, self._layout, self._codec = folder, export, layout, codec
        self._rate = Fraction(export.rate_hz).limit_denominator(1001)
        self._cameras = {
            name: _Camera(folder, name, codec, self._rate) for name in sorted(layout.as_video)
        }
        (folder / "meta").mkdir(parents=True)
        self._episodes = EpisodesTable(folder)
        self._tasks: dict[str, int] = {}
        self._stats: dict[str, Stats] = {}
        self._data: Any = None
        self._data_file = Path()
        self._data_number = -1
        self._count = self._steps = self._retimed = 0

    def add(self, episode: ForeignEpisode) -> None:
        """Write one episode's rows and frames."""
        layout, length = self._layout, len(next(iter(episode.steps.values())))
        if length == 0:
            raise StoreError(f"{episode.where} has no steps. Leave it out.")
        times = episode.steps.get(TIMESTAMP)
        if times is not None and TIMESTAMP not in layout.numbers:
            self._retimed += not is_regular(times, float(self._rate))
        said = episode.texts.get(TASK) or ("",)
        each = said if len(said) == length else said[:1] * length
        for text in each:
            self._tasks.setdefault(text, len(self._tasks))
        values = {name: episode.steps[key] for key, name in layout.numbers.items()}
        values |= self._counters(length, [self._tasks[text] for text in each])
        frames = {name: episode.steps[key] for key, name in layout.cameras.items()}
        columns = {name: numbers_column(array) for name, array in values.items()}
        for name, array in frames.items():
            if name not in layout.as_video:
                columns[name] = pictures_column(array)
        for key, name in layout.texts.items():
            kept = episode.texts[key]
            columns[name] = list(kept if len(kept) == length else kept[:1] * length)
        place = self._write_rows(columns)
        stats = {name: number_stats(array) for name, array in values.items()}
        stats |= {name: camera_stats(array) for name, array in frames.items()}
        row: dict[str, Any] = {
            "episode_index": self._count,
            "tasks": list(dict.fromkeys(each)),
            "length": length,
            **place,
            "dataset_from_index": self._steps,
            "dataset_to_index": self._steps + length,
            METADATA: json.dumps(episode.metadata),
        }
        for name, camera in self._cameras.items():
            row |= camera.add(frames[name])
        self._episodes.add(row, stats)
        self._stats = joined_stats([self._stats, stats] if self._stats else [stats])
        self._count += 1
        self._steps += length

    def finish(self) -> list[str]:
        """End every file and write what tells of them; what was lost, one phrase each."""
        self._data.close()
        self._data = None
        self._episodes.close()
        write_tasks(self._folder, list(self._tasks))
        phrases: list[str] = []
        for name, camera in self._cameras.items():
            camera.close()
            if camera.first is not None:
                self._layout.features[name]["info"] = video_info(camera.first.path)
                phrases.append(
                    f"{name} is lossy: {self._codec} crf 30, PSNR {camera.first.psnr():.1f} dB in "
                    f"frames of the first episode"
                )
        stats = {key: _plain(values) for key, values in self._stats.items()}
        self._write_json("meta/stats.json", stats)
        if self._export.ours:
            self._write_json(OUR_FILE, dict(self._export.ours))
        self._write_json(INFO, self._info())
        if self._retimed:
            phrases.append(
                f"timestamps of {self._retimed} episodes, which are as the rate says now"
            )
        if self._rate.denominator != 1:
            phrases.append(
                f"the rate {float(self._rate):g} Hz is no whole number, as LeRobot's are"
            )
        return phrases

    def abandon(self) -> None:
        """Close what is still open, whatever it has become."""
        for camera in self._cameras.values():
            camera.abandon()
        if self._data is not None:
            self._data.close()
        self._episodes.close()

    def _counters(self, length: int, tasks: list[int]) -> dict[str, np.ndarray]:
        steps = np.arange(length)
        return {
            "timestamp": (steps / float(self._rate)).astype(np.float32),
            "frame_index": steps,
            "episode_index": np.full(length, self._count),
            "index": self._steps + steps,
            "task_index": np.array(tasks),
        }

    def _write_rows(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        """Append a row group; the columns of meta/episodes that tell in which file."""
        table = pa.table({k: columns[k] for k in self._layout.features if k in columns})
        if self._data is None or self._data_file.stat().st_size >= _DATA_MB << 20:
            if self._data is not None:
                self._data.close()
            self._data_number += 1
            self._data_file = self._folder / _DATA.format(**self._place())
            self._data_file.parent.mkdir(parents=True, exist_ok=True)
            self._data = pq.ParquetWriter(self._data_file, table.schema, write_page_checksum=True)
        self._data.write_table(table)
        return {f"data/{name}": value for name, value in self._place().items()}

    def _place(self) -> dict[str, int]:
        chunk, number = divmod(self._data_number, _FILES_IN_CHUNK)
        return {"chunk_index": chunk, "file_index": number}

    def _info(self) -> dict[str, Any]:
        facts, whole = self._export.facts, self._rate.denominator == 1
        kept = facts.get("splits") if facts.get("total_episodes") == self._count else None
        return {
            "codebase_version": "v3.0",
            "robot_type": facts.get("robot_type"),
            "total_episodes": self._count,
            "total_frames": self._steps,
            "total_tasks": len(self._tasks),
            "chunks_size": _FILES_IN_CHUNK,
            "data_files_size_in_mb": _DATA_MB,
            "video_files_size_in_mb": _VIDEO_MB,
            "fps": int(self._rate) if whole else float(self._rate),
            "splits": kept or {"train": f"0:{self._count}"},
            "data_path": _DATA,
            "video_path": _VIDEO if self._cameras else None,
            "features": self._layout.features,
        }

    def _write_json(self, name: str, value: Mapping[str, Any]) -> None:
        text = json.dumps(value, indent=4, ensure_ascii=False)
        (self._folder / name).write_text(text, encoding="utf-8")


def _plain(stats: Stats) -> dict[str, Any]:
    return {name: value.tolist() for name, value in stats.items()}
