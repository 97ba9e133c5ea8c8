"""List the episodes of a LeRobot v2.0 or v2.1 data set: a parquet file and videos for each.

meta/info.json                                            rate, features, path templates
meta/tasks.jsonl                                          {"task_index": 0, "task": "..."}
meta/episodes.jsonl                                       {"episode_index": 0, "length": 7, ...}
data/chunk-000/episode_000000.parquet                     a row for each step
videos/chunk-000/<key>/episode_000000.mp4                 the frames of the episode
"""

import json
from pathlib import Path
from typing import Any

from loopdit.datasets.formats.lerobot_info import Info
from loopdit.datasets.formats.lerobot_reader import (
    LeRobotData,
    LeRobotEpisode,
    VideoSpan,
    require_once,
)
from loopdit.errors import StoreError

EPISODES = "meta/episodes.jsonl"
TASKS = "meta/tasks.jsonl"


def open_v21(info: Info) -> LeRobotData:
    """Raises StoreError for lists that are missing or damaged."""
    size = info.raw.get("chunks_size")
    if type(size) is not int or size < 1:
        raise StoreError(f"{info.file}: chunks_size={size!r} is no number. Correct it there.")
    listed = _lines(info.root / EPISODES, "episode_index", "length")
    listed.sort(key=lambda line: line["episode_index"])
    require_once([line["episode_index"] for line in listed], info.root / EPISODES)
    tasks = _lines(info.root / TASKS, "task_index")
    said = info.raw.get("total_episodes")
    if isinstance(said, int) and said != len(listed):
        raise StoreError(
            f"{info.file} says {said} episodes, {info.root / EPISODES} lists {len(listed)}: the "
            f"writer may have been stopped. Correct total_episodes to use those that are listed."
        )
    episodes = [_episode(info, line, size) for line in listed]
    return LeRobotData(info, episodes, {t["task_index"]: str(t.get("task")) for t in tasks}, {})


def _episode(info: Info, line: dict[str, Any], chunks_size: int) -> LeRobotEpisode:
    number = line["episode_index"]
    names: dict[str, Any] = {"episode_chunk": number // chunks_size, "episode_index": number}
    return LeRobotEpisode(
        number=number,
        length=line["length"],
        file=info.path("data_path", **names),
        row=0,
        videos={
            key: VideoSpan(info.path("video_path", video_key=key, **names))
            for key, feature in info.features.items()
            if feature.dtype == "video"
        },
        metadata={k: v for k, v in line.items() if k not in ("episode_index", "length", "tasks")},
        alone=True,
    )


def _lines(file: Path, *numbers: str) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines, each with these whole numbers."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"cannot read {file}: {error}. Restore that file.") from error
    lines: list[dict[str, Any]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            value: Any = json.loads(line)
        except ValueError:
            value = None
        if not isinstance(value, dict) or not all(
            type(value.get(key)) is int and value[key] >= 0 for key in numbers
        ):
            raise StoreError(
                f"{file}, line {number}: {line[:60]!r} has no {' or '.join(numbers)}. "
                f"Restore that file."
            )
        lines.append(value)
    return lines
