"""Two robots side by side in one picture: squares that move as they are told."""

from pathlib import Path

import numpy as np

from loopdit.datasets.spec import PROPRIO, PolicySpec, TensorSpec
from loopdit.datasets.store import Episode, EpisodeStore, EpisodeWriter

LABELS = tuple(f"{robot}_{what}" for robot in ("left", "right") for what in ("dx", "dy", "gripper"))


def two_squares(path: Path, episodes: int = 2, steps: int = 10) -> EpisodeStore:
    """A store whose episodes have pictures of 32 x 64 and actions of twice three numbers."""
    spec = PolicySpec(
        observations=(
            TensorSpec("images.front", (32, 64, 3), "uint8"),
            TensorSpec(PROPRIO, (4,), "float32"),
        ),
        action=TensorSpec("action", (6,), "float32", LABELS, ("px", "px", "1") * 2),
        action_frame="each square's way",
        control_period_s=0.2,
    )
    writer = EpisodeWriter.create(path, spec, {"made": "for a test"})
    for seed in range(episodes):
        random = np.random.default_rng(seed)
        actions = random.integers(-2, 3, (steps, 6)).astype(np.float32)
        actions[:, 2::3] = random.integers(0, 2, (steps, 2))
        frames = np.zeros((steps, 32, 64, 3), np.uint8)
        corners = 12 + np.cumsum(actions[:, [0, 1, 3, 4]], axis=0).clip(-10, 10).astype(int)
        for frame, (x, y, u, v) in zip(frames, corners, strict=True):
            frame[y : y + 8, x : x + 8] = 200
            frame[v : v + 8, 32 + u : 40 + u] = 200
        observations = {"images.front": frames, PROPRIO: corners.astype(np.float32)}
        writer.append(Episode(observations, actions, "move the squares", None, seed))
    return EpisodeStore.open(path)
