"""Episodes in which a square moves and the action is where it goes."""

from pathlib import Path

import numpy as np
from tests.policy.graft.graft_policies import CAMERA, SPEC

from loopdit.datasets.episode import Episode
from loopdit.datasets.spec import PROPRIO
from loopdit.datasets.store import EpisodeWriter


def squares_store(path: Path) -> str:
    """Ten of them, of 12 steps, in a new store."""
    rng = np.random.default_rng(0)
    writer = EpisodeWriter.create(path, SPEC, {})
    for number in range(10):
        frames = np.zeros((12, 32, 48, 3), np.uint8)
        steps = rng.choice([-1, 1], 12)
        for frame, left in zip(frames, 20 + np.cumsum(steps), strict=True):
            frame[8:20, left : left + 8] = 255
        actions = np.zeros((12, 4), np.float32)
        actions[:, 0] = steps * 0.5
        actions[:, 3] = steps > 0
        writer.append(episode_of(frames, actions, ("close it", "open it")[number % 2]))
    return str(path)


def episode_of(frames: np.ndarray, actions: np.ndarray, instruction: str) -> Episode:
    """Frames (T, H, W, 3) and actions (T, A), with nothing sensed."""
    observations = {CAMERA: frames, PROPRIO: np.zeros((len(frames), 3), np.float32)}
    return Episode(observations, actions, instruction, None, None)
