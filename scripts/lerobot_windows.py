"""Time random windows of a LeRobot v3 data set by LeRobotDataset itself, and print JSON.

    .suites/lerobot/bin/python scripts/lerobot_windows.py FOLDER [--workers 2] [--seconds 20]

A window is two frames of every camera, two states and 16 actions; batches of 64 are drawn by a
shuffling DataLoader, as LeRobot's own training draws them. Runs in the environment of
lerobot_env.sh and imports nothing of loopdit. The first batch of each worker is not counted.
"""

import argparse
import json
import logging
import os
import statistics
import sys
import time
import warnings
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
warnings.filterwarnings("ignore", message="Failed to load image Python extension")
warnings.filterwarnings("ignore", message=".*video decoding and encoding capabilities")

import torch  # noqa: E402

# torchvision's compiled operators do not load beside this torch; importing it needs this one.
_operators = torch.library.Library("torchvision", "DEF")
_operators.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def measure(folder: str, batch: int, workers: int, seconds: float, seed: int) -> dict[str, Any]:
    """Windows per second of `seconds` of batches, with what was measured."""
    from lerobot.datasets.lerobot_dataset import (  # pyright: ignore[reportMissingImports]
        LeRobotDataset,
        LeRobotDatasetMetadata,
    )

    meta: Any = LeRobotDatasetMetadata("local/set", folder)
    period = 1 / meta.fps
    offsets = {key: [-period, 0.0] for key in meta.camera_keys}
    offsets["observation.state"] = [-period, 0.0]
    offsets["action"] = [step * period for step in range(16)]
    data: Any = LeRobotDataset(
        "local/set", folder, delta_timestamps=offsets, video_backend="pyav", tolerance_s=1e-3
    )
    loader: Any = torch.utils.data.DataLoader(
        data,
        batch_size=batch,
        sampler=torch.utils.data.RandomSampler(
            data,
            replacement=True,
            num_samples=10**6,
            generator=torch.Generator().manual_seed(seed),
        ),
        num_workers=workers,
    )
    batches = iter(loader)
    first = next(batches)
    for _ in range(1, workers):
        next(batches)
    took: list[float] = []
    while sum(took) < seconds or len(took) < 3:
        began = time.perf_counter()
        next(batches)
        took.append(time.perf_counter() - began)
    quarter = max(1, len(took) // 4)
    parts = [took[i : i + quarter] for i in range(0, len(took) - quarter + 1, quarter)]
    rates = [batch * len(part) / sum(part) for part in parts]
    return {
        "windows_per_s": batch * len(took) / sum(took),
        "windows_per_s_of_quarters": [round(rate, 1) for rate in rates],
        "batch_s_median": statistics.median(took),
        "batches": len(took),
        "batch": batch,
        "workers": workers,
        "shapes": {k: list(v.shape) for k, v in first.items() if hasattr(v, "shape")},
        "episodes": data.num_episodes,
        "frames": len(data),
        "torch": torch.__version__,
    }


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    torch.set_num_threads(1)  # as in a worker: on a busy machine its threads wait for each other
    logging.disable(logging.WARNING)
    found = measure(chosen.folder, chosen.batch, chosen.workers, chosen.seconds, chosen.seed)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
