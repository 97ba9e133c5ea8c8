"""Small real policies and stores for the tests of training and checkpoints."""

from pathlib import Path

import numpy as np

from loopdit.datasets.spec import PROPRIO, PolicySpec, TensorSpec
from loopdit.datasets.store import Episode, EpisodeStore, EpisodeWriter
from loopdit.policy.looped_dit_config import LoopedDiTConfig

SMALL = LoopedDiTConfig(width=32, max_loops=2, action_horizon=4, actions_per_token=2)


def small_spec(proprio: int = 3, cameras: int = 1, size: int = 16) -> PolicySpec:
    frames = [TensorSpec(f"images.camera{i}", (size, size, 3), "uint8") for i in range(cameras)]
    return PolicySpec(
        observations=(*frames, TensorSpec(PROPRIO, (proprio,), "float32")),
        action=TensorSpec("action", (2,), "float32", low=(-1.0, 0.0), high=(1.0, 1.0)),
        action_frame="two numbers",
        control_period_s=0.1,
    )


def small_store(path: Path, spec: PolicySpec | None = None, episodes: int = 6) -> EpisodeStore:
    """Episodes whose actions are a simple function of the proprio: learnable in seconds."""
    spec = spec or small_spec()
    writer = EpisodeWriter.create(path, spec, {"made": "for a test"})
    for seed in range(episodes):
        rng = np.random.default_rng(seed)
        length = int(rng.integers(6, 10))
        proprio = rng.normal(size=(length, spec.proprio.shape[0])).astype(np.float32)
        frames = {
            camera.name: rng.integers(0, 256, (length, *camera.shape), dtype=np.uint8)
            for camera in spec.cameras
        }
        actions = np.stack([np.tanh(proprio[:, 0]), proprio[:, 1] > 0], axis=1)
        writer.append(
            Episode({**frames, PROPRIO: proprio}, actions.astype(np.float32), "do it", True, seed)
        )
    return EpisodeStore.open(path)
