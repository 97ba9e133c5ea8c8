"""A small spec with everything a spec can have, and episodes that follow from their seed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from loopdit.datasets.spec import PolicySpec, TensorSpec
from loopdit.datasets.store import Episode, EpisodeWriter


@pytest.fixture(scope="session")
def spec() -> PolicySpec:
    return PolicySpec(
        observations=(
            TensorSpec("images.front", (4, 4, 3), "uint8"),
            TensorSpec("images.wrist", (4, 4, 3), "uint8"),
            TensorSpec("proprio", (2,), "float32", ("shoulder", "gripper"), ("rad", "m")),
        ),
        action=TensorSpec(
            "action", (3,), "float32", ("x", "y", "grip"), ("m", "m", "1"), (-1, -1, 0), (1, 1, 1)
        ),
        action_frame="base of the robot",
        control_period_s=0.1,
    )


@pytest.fixture(scope="session")
def episode() -> Callable[[int, int], Episode]:
    """episode(seed, length): random content that the seed alone decides."""

    def make(seed: int, length: int) -> Episode:
        random = np.random.default_rng(seed)
        images = random.integers(0, 256, (2, length, 4, 4, 3), dtype=np.uint8)
        return Episode(
            observations={
                "images.front": images[0],
                "images.wrist": images[1],
                "proprio": random.normal(size=(length, 2)).astype(np.float32),
            },
            actions=random.uniform(0, 1, (length, 3)).astype(np.float32),
            instruction=f"lift the cube, take {seed}",
            success=seed % 2 == 0,
            seed=seed,
        )

    return make


@pytest.fixture
def store(tmp_path: Path, spec: PolicySpec, episode: Callable[[int, int], Episode]) -> Path:
    """A store of three episodes of 5, 1 and 8 steps with seeds 0, 1 and 2."""
    writer = EpisodeWriter.create(tmp_path / "store", spec, {"made by": "a test"})
    for seed, length in enumerate((5, 1, 8)):
        writer.append(episode(seed, length))
    return tmp_path / "store"
