"""LeRobot's own side, run in the environment of scripts/lerobot_env.sh; imports nothing of ours.

python lerobot_itself.py read FOLDER OUT.npz     every item of a v3 set by LeRobotDataset
python lerobot_itself.py write FOLDER video|image   a set of two episodes by LeRobotDataset
python lerobot_itself.py convert PARENT NAME        a v2.1 set to v3.0 by LeRobot's converter
"""

import os
import sys
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch

_operators = torch.library.Library("torchvision", "DEF")
_operators.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def read(folder: str, out: str) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset  # pyright: ignore

    data: Any = LeRobotDataset("local/set", folder, video_backend="pyav")
    items = [data[i] for i in range(len(data))]
    arrays: dict[str, Any] = {
        key: np.stack([np.asarray(item[key]) for item in items]) for key in items[0]
    }
    arrays["lengths"] = np.array(data.meta.episodes["length"])
    for key, stats in data.meta.stats.items():
        arrays |= {f"stats/{key}/{name}": np.asarray(value) for name, value in stats.items()}
    episodes = [
        {
            key: {
                name: np.asarray(data_stats)
                for name, data_stats in episode_stats(folder, number, key).items()
            }
            for key in ("action", *data.meta.camera_keys)
        }
        for number in range(data.num_episodes)
    ]
    from lerobot.datasets.compute_stats import aggregate_stats  # pyright: ignore

    for key, stats in aggregate_stats(episodes).items():
        arrays |= {f"aggregated/{key}/{name}": value for name, value in stats.items()}
    np.savez(out, **arrays)


def episode_stats(folder: str, number: int, key: str) -> dict[str, Any]:
    import pandas as pd  # pyright: ignore

    row: Any = pd.read_parquet(f"{folder}/meta/episodes/chunk-000/file-000.parquet").iloc[number]
    prefix = f"stats/{key}/"
    return {
        name.removeprefix(prefix): np.array(
            [np.stack(list(v)) if isinstance(v, np.ndarray) else v for v in row[name]]
        )
        for name in row.index
        if name.startswith(prefix)
    }


def write(folder: str, kind: str) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset  # pyright: ignore

    features = {
        "observation.images.front": {
            "dtype": kind,
            "shape": (64, 96, 3),
            "names": ["height", "width", "channels"],
        },
        "observation.state": {"dtype": "float32", "shape": (3,), "names": ["x", "y", "z"]},
        "action": {"dtype": "float32", "shape": (2,), "names": ["left.pos", "right.pos"]},
        "contact": {"dtype": "float32", "shape": (2, 3), "names": None},
    }
    data: Any = LeRobotDataset.create(
        "local/set", 10, features, root=folder, robot_type="so101", use_videos=kind == "video"
    )
    for number, length in enumerate((12, 20)):
        for step in range(length):
            grey = np.full((64, 96, 3), (number * 100 + 7 * step) % 250, np.uint8)
            values = np.arange(6, dtype=np.float32) + 10 * number + step
            data.add_frame(
                {
                    "observation.images.front": grey,
                    "observation.state": values[:3],
                    "action": values[:2] / 8,
                    "contact": values.reshape(2, 3),
                    "task": f"task {number}",
                }
            )
        data.save_episode(parallel_encoding=False)
    data.finalize()


def convert(parent: str, name: str) -> None:
    from lerobot.datasets.v30.convert_dataset_v21_to_v30 import (  # pyright: ignore
        convert_dataset,
    )

    convert_dataset(name, root=parent, push_to_hub=False)


if __name__ == "__main__":
    {"read": read, "write": write, "convert": convert}[sys.argv[1]](*sys.argv[2:])
    assert Path(sys.argv[2]).exists()
