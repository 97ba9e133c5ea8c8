"""Writes the golden episode store of format version 1: one episode of 3 steps, 4x4 images.

`make goldens` runs it; the difference to the committed files is then a change of the format.
"""

import shutil
import sys
from pathlib import Path

import numpy as np

from loopdit.datasets.spec import PolicySpec, TensorSpec
from loopdit.datasets.store import Episode, EpisodeWriter

GOLDEN = Path(__file__).with_name("episode_store_v1")


def golden_spec() -> PolicySpec:
    return PolicySpec(
        observations=(
            TensorSpec("images.front", (4, 4, 3), "uint8"),
            TensorSpec("images.wrist", (4, 4, 3), "uint8"),
            TensorSpec("proprio", (2,), "float32", ("joint", "gripper"), ("rad", "m")),
        ),
        action=TensorSpec(
            "action", (2,), "float32", ("x", "gripper"), ("m", "1"), (-1.0, 0.0), (1.0, 1.0)
        ),
        action_frame="base of the robot",
        control_period_s=0.1,
    )


def golden_episode() -> Episode:
    front = np.arange(3 * 4 * 4 * 3, dtype=np.uint8).reshape(3, 4, 4, 3)
    return Episode(
        observations={
            "images.front": front,
            "images.wrist": np.zeros_like(front),  # all zeros: its file must exist all the same
            "proprio": np.array([[0.0, 0.5], [0.25, 0.5], [-1.5, 0.0]], np.float32),
        },
        actions=np.array([[0.125, 1.0], [-0.25, 1.0], [0.0, 0.0]], np.float32),
        instruction="lift the cube — slowly",
        success=True,
        seed=7,
    )


def write_golden(path: Path) -> None:
    writer = EpisodeWriter.create(path, golden_spec(), {"made_by": "tests/goldens", "seeds": [7]})
    writer.append(golden_episode())


if __name__ == "__main__":
    if GOLDEN.exists():
        shutil.rmtree(GOLDEN)
    write_golden(GOLDEN)
    sys.stdout.write(f"wrote {GOLDEN}\n")
