"""A made-up data set of a few seconds: a square that moves as it is told, and may be filled.

For runs that only show that a study runs. Nothing is concluded from it.
"""

from pathlib import Path

import numpy as np

from loopdit.datasets.spec import PROPRIO, PolicySpec, TensorSpec
from loopdit.datasets.store import Episode, EpisodeStore, EpisodeWriter

_SIDE, _SQUARE, _STEPS, _EPISODES = 32, 8, 10, 2


def film(folder: Path) -> EpisodeStore:
    """Two episodes of ten steps, in a new store at `folder`."""
    spec = PolicySpec(
        observations=(
            TensorSpec("images.front", (_SIDE, _SIDE, 3), "uint8"),
            TensorSpec(PROPRIO, (2,), "float32"),
        ),
        action=TensorSpec("action", (3,), "float32", ("dx", "dy", "gripper"), ("px", "px", "1")),
        action_frame="the square's way until the next frame; gripper 1 fills it",
        control_period_s=0.2,
    )
    writer = EpisodeWriter.create(folder, spec, {"made": "for a run of a study"})
    for seed in range(_EPISODES):
        writer.append(_episode(seed))
    return EpisodeStore.open(folder)


def _episode(seed: int) -> Episode:
    random = np.random.default_rng(seed)
    actions = random.integers(-3, 4, (_STEPS, 3)).astype(np.float32)
    actions[:, 2] = np.arange(_STEPS) >= random.integers(1, _STEPS)
    moved = np.cumsum(actions[:-1, :2], axis=0)
    corners = np.vstack([[12, 12], 12 + moved]).clip(0, _SIDE - _SQUARE).astype(int)
    frames = np.full((_STEPS, _SIDE, _SIDE, 3), 40, np.uint8)
    for frame, (x, y), filled in zip(frames, corners, actions[:, 2], strict=True):
        frame[y : y + _SQUARE, x : x + _SQUARE] = 200
        if not filled:
            frame[y + 2 : y + _SQUARE - 2, x + 2 : x + _SQUARE - 2] = 40
    observations = {"images.front": frames, PROPRIO: corners.astype(np.float32)}
    return Episode(observations, actions, "move the square", None, seed)
