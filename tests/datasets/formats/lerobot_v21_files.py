"""A LeRobot v2.1 data set written by pyarrow and PyAV alone, after LeRobot 0.3.3's own layout."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FPS = 10
CAMERA = "observation.images.front"
COUNTED = ("timestamp", "frame_index", "episode_index", "index", "task_index")


@dataclass
class LegacyEpisode:
    frames: np.ndarray  # (T, H, W, 3)
    state: np.ndarray  # (T, S) float32
    action: np.ndarray  # (T, A) float32
    task_index: np.ndarray  # (T,)


def legacy_episode(number: int, length: int) -> LegacyEpisode:
    """Each frame is of one grey level that tells the step: 8 for each step, from the number on."""
    random = np.random.default_rng(number)
    levels = (number * 40 + 8 * np.arange(length)) % 250
    return LegacyEpisode(
        frames=np.broadcast_to(levels[:, None, None, None], (length, 48, 64, 3)).astype(np.uint8),
        state=random.normal(size=(length, 3)).astype(np.float32),
        action=random.normal(size=(length, 2)).astype(np.float32),
        task_index=np.full(length, number % 2),
    )


def write_v21(root: Path, episodes: Sequence[LegacyEpisode], tasks: Sequence[str]) -> None:
    (root / "meta").mkdir(parents=True)
    total = 0
    for number, episode in enumerate(episodes):
        length = len(episode.action)
        columns: dict[str, Any] = {
            "observation.state": episode.state.tolist(),
            "action": episode.action.tolist(),
            "timestamp": (np.arange(length) / FPS).astype(np.float32),
            "frame_index": np.arange(length),
            "episode_index": np.full(length, number),
            "index": total + np.arange(length),
            "task_index": episode.task_index,
        }
        kinds = {"observation.state": pa.list_(pa.float32()), "action": pa.list_(pa.float32())}
        arrays = {name: pa.array(column, kinds.get(name)) for name, column in columns.items()}
        file = root / f"data/chunk-000/episode_{number:06d}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(arrays), file)
        write_mp4(root / f"videos/chunk-000/{CAMERA}/episode_{number:06d}.mp4", episode.frames)
        total += length
    lines(root / "meta/tasks.jsonl", [{"task_index": i, "task": t} for i, t in enumerate(tasks)])
    listed = [
        {
            "episode_index": number,
            "tasks": [tasks[i] for i in dict.fromkeys(episode.task_index.tolist())],
            "length": len(episode.action),
        }
        for number, episode in enumerate(episodes)
    ]
    lines(root / "meta/episodes.jsonl", listed)
    stats = [
        {"episode_index": number, "stats": {"action": _stats(episode.action)}}
        for number, episode in enumerate(episodes)
    ]
    lines(root / "meta/episodes_stats.jsonl", stats)
    (root / "meta/info.json").write_text(json.dumps(_info(len(episodes), total, len(tasks))))


def write_mp4(file: Path, frames: np.ndarray, group: int = 2, rate: int = FPS) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate, options={"g": str(group), "crf": "18"})
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def lines(file: Path, values: Sequence[Any]) -> None:
    file.write_text("".join(json.dumps(value) + "\n" for value in values))


def _stats(values: np.ndarray) -> dict[str, list[float]]:
    return {
        "min": values.min(axis=0).tolist(),
        "max": values.max(axis=0).tolist(),
        "mean": values.mean(axis=0).tolist(),
        "std": values.std(axis=0).tolist(),
        "count": [len(values)],
    }


def _info(episodes: int, frames: int, tasks: int) -> dict[str, Any]:
    features: dict[str, Any] = {
        CAMERA: {"dtype": "video", "shape": [48, 64, 3], "names": ["height", "width", "channels"]},
        "observation.state": {
            "dtype": "float32",
            "shape": [3],
            "names": {"motors": ["waist", "elbow", "gripper"]},
        },
        "action": {"dtype": "float32", "shape": [2], "names": ["waist", "elbow"]},
    }
    features |= {
        key: {"dtype": "float32" if key == "timestamp" else "int64", "shape": [1], "names": None}
        for key in COUNTED
    }
    return {
        "codebase_version": "v2.1",
        "robot_type": "koch",
        "total_episodes": episodes,
        "total_frames": frames,
        "total_tasks": tasks,
        "total_videos": episodes,
        "total_chunks": 1,
        "chunks_size": 1000,
        "fps": FPS,
        "splits": {"train": f"0:{episodes}"},
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/"
        "episode_{episode_index:06d}.mp4",
        "features": features,
    }
