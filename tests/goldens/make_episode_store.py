"""Writes the golden episode stores of format version 2: one episode of 3 steps, 4x4 images.

One store for each way to keep frames. `make goldens` runs it; the difference to the committed
files is then a change of the format. What is compressed may also differ with the library that
compresses. The store of version 1 was written by the loopdit of that version and stays as it is.
"""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from loopdit.datasets.spec import PolicySpec, TensorSpec
from loopdit.datasets.store import Episode, EpisodeWriter

GOLDEN = Path(__file__).with_name("episode_store_v2")
FRAMES = ("raw", "zstd", "jpeg")


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
    """That of version 1, which had no extras and no metadata."""
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


def golden_episode_with_extras() -> Episode:
    return replace(
        golden_episode(),
        seed=None,
        success=None,
        extras={
            "obs/gripper": np.array([[0.5], [0.25], [0.125]]),
            "is_last": np.array([False, False, True]),
        },
        metadata={"file": "demo_0.hdf5", "operators": ["a", "b"]},
    )


def write_golden(path: Path, frames: str) -> None:
    provenance = {"made_by": "tests/goldens", "seeds": [7]}
    writer = EpisodeWriter.create(path, golden_spec(), provenance, frames)
    writer.append(golden_episode())
    writer.append(golden_episode_with_extras())


if __name__ == "__main__":
    if GOLDEN.exists():
        shutil.rmtree(GOLDEN)
    for kept in FRAMES:
        write_golden(GOLDEN / kept, kept)
    sys.stdout.write(f"wrote {GOLDEN}\n")
