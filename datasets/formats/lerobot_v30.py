"""List the episodes of a LeRobot v3.0 data set: many episodes to a parquet file and to a video.

meta/info.json                                   rate, features, path templates
meta/tasks.parquet                               text and task_index
meta/episodes/chunk-000/file-000.parquet         a row for each episode: length, files, times
data/chunk-000/file-000.parquet                  a row for each step
videos/<key>/chunk-000/file-000.mp4              the frames of several episodes
meta/loopdit.json                                what we keep of our own, in sets we wrote
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loopdit.datasets.formats.lerobot_columns import ParquetRows
from loopdit.datasets.formats.lerobot_info import Info
from loopdit.datasets.formats.lerobot_reader import (
    LeRobotData,
    LeRobotEpisode,
    VideoSpan,
    require_once,
)
from loopdit.errors import StoreError

EPISODES = "meta/episodes"
TASKS = "meta/tasks.parquet"
OUR_FILE = "meta/loopdit.json"
METADATA = "metadata"  # our column of meta/episodes: JSON of what else is known of an episode
# Columns of meta/episodes that say where things are, or that are counted here.
_BOOKKEEPING = ("episode_index", "index", "length", "tasks", METADATA)
_PLACES = ("dataset_from_index", "dataset_to_index")
_LONGEST_S = 1e9  # thirty years: beyond it, seconds do not fit a video's clock
_PREFIXES = ("stats/", "data/", "videos/", "meta/")


def open_v30(info: Info) -> LeRobotData:
    """Raises StoreError for lists that are missing, damaged or do not fit together."""
    rows = _episode_rows(info)
    said = info.raw.get("total_episodes")
    if isinstance(said, int) and said != len(rows):
        raise StoreError(
            f"{info.file} says {said} episodes, {info.root / EPISODES} lists {len(rows)}: the "
            f"writer may have been stopped. Correct total_episodes to use those that are listed."
        )
    require_once([row["episode_index"] for row in rows], info.root / EPISODES)
    return LeRobotData(info, _located(info, rows), _tasks(info.root), _ours(info.root))


def _episode_rows(info: Info) -> list[dict[str, Any]]:
    """What meta/episodes says of each episode but its statistics, by rising number."""
    files = sorted((info.root / EPISODES).glob("*/*.parquet"))
    if not files:
        raise StoreError(
            f"there is no parquet file in {info.root / EPISODES}. Restore that folder."
        )
    rows: list[dict[str, Any]] = []
    for file in files:
        parquet = ParquetRows(file)
        names = [name for name in parquet.names if not name.startswith("stats/")]
        if parquet.count:
            rows += parquet.read(0, parquet.count, names).to_pylist()
        parquet.close()
    try:
        return sorted(rows, key=lambda row: int(row["episode_index"]))
    except (KeyError, TypeError) as error:
        raise StoreError(f"{files[0]} has no episode_index. Restore that file.") from error


def _located(info: Info, rows: list[dict[str, Any]]) -> list[LeRobotEpisode]:
    """Each episode with its files. In a data file, episodes follow one another."""
    videos = [feature.key for feature in info.features.values() if feature.dtype == "video"]
    first_rows: dict[Path, int] = {}
    found: list[tuple[dict[str, Any], Path, int]] = []
    for row in rows:
        number = row["episode_index"]
        file = info.path(
            "data_path",
            chunk_index=_whole(info, row, number, "data/chunk_index"),
            file_index=_whole(info, row, number, "data/file_index"),
        )
        start = _whole(info, row, number, "dataset_from_index")
        first_rows[file] = min(start, first_rows.get(file, start))
        found.append((row, file, start))
    return [
        LeRobotEpisode(
            number=row["episode_index"],
            length=_whole(info, row, row["episode_index"], "length", least=1),
            file=file,
            row=start - first_rows[file],
            videos={key: _span(info, row, key) for key in videos},
            metadata=_metadata(row),
        )
        for row, file, start in found
    ]


def _span(info: Info, row: Mapping[str, Any], key: str) -> VideoSpan:
    number = row["episode_index"]
    file = info.path(
        "video_path",
        video_key=key,
        chunk_index=_whole(info, row, number, f"videos/{key}/chunk_index"),
        file_index=_whole(info, row, number, f"videos/{key}/file_index"),
    )
    times = [row.get(f"videos/{key}/{end}_timestamp") for end in ("from", "to")]
    if not all(isinstance(time, int | float) and 0 <= time < _LONGEST_S for time in times):
        raise StoreError(
            f"{info.root / EPISODES}, episode {number}: {key} is from {times[0]!r} to "
            f"{times[1]!r} s. Restore those files."
        )
    return VideoSpan(file, float(times[0] or 0), float(times[1] or 0))


def _whole(info: Info, row: Mapping[str, Any], number: Any, column: str, least: int = 0) -> int:
    value = row.get(column)
    if not isinstance(value, int) or value < least:
        raise StoreError(
            f"{info.root / EPISODES}, episode {number}: {column} is {value!r}. Restore those files."
        )
    return value


def _metadata(row: Mapping[str, Any]) -> dict[str, Any]:
    others = {
        key: value
        for key, value in row.items()
        if key not in (*_BOOKKEEPING, *_PLACES) and not key.startswith(_PREFIXES)
    }
    try:
        kept: Any = json.loads(row.get(METADATA) or "{}")
    except (TypeError, ValueError):
        kept = None
    if not isinstance(kept, dict):  # somebody else's column of that name
        kept = {METADATA: row[METADATA]}
    return json.loads(json.dumps(others | kept, default=str))


def _tasks(root: Path) -> dict[int, str]:
    """task_index -> text, which pandas wrote as the rows' names in a column of any name."""
    file = ParquetRows(root / TASKS)
    table = file.read(0, file.count, list(file.names)) if file.count else None
    file.close()
    tasks: dict[int, str] = {}
    for row in [] if table is None else table.to_pylist():
        texts = [value for value in row.values() if isinstance(value, str)]
        if not texts or not isinstance(row.get("task_index"), int):
            raise StoreError(f"{root / TASKS} has no text or no task_index. Restore that file.")
        tasks[row["task_index"]] = texts[0]
    return tasks


def _ours(root: Path) -> Mapping[str, Any]:
    try:
        ours: Any = json.loads((root / OUR_FILE).read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{root / OUR_FILE} cannot be read: {error}. Remove it to go by LeRobot's files alone."
        ) from error
    return ours if isinstance(ours, dict) else {}
