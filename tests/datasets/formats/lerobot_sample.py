"""Episodes under LeRobot's keys, with everything that a LeRobot data set can hold."""

from collections.abc import Iterator, Sequence

import numpy as np

from loopdit.datasets.formats.foreign import Export, ForeignEpisode

FRONT, WRIST = "observation.images.front", "observation.images.wrist"
LENGTHS = (12, 1, 20)
RATE = 10.0


def sample_episode(number: int, length: int) -> ForeignEpisode:
    """A disc that moves over a gradient, and numbers that follow from `number`."""
    random = np.random.default_rng(number)
    y, x = np.mgrid[:64, :80]
    steps = np.arange(length)[:, None, None]
    disc = (x - 20 - 2 * steps) ** 2 + (y - 30) ** 2 < 100
    front = np.stack([disc * 200, np.broadcast_to(x * 2, disc.shape), disc * 90 + 40], axis=-1)
    texts = {"task": ("pick the cube",) if number != 2 else ("pick",) * 7 + ("place",) * 13}
    return ForeignEpisode(
        where=f"episode {number}",
        steps={
            FRONT: front.astype(np.uint8),
            WRIST: np.ascontiguousarray(front[:, ::-1]).astype(np.uint8),
            "observation.state": random.normal(size=(length, 3)).astype(np.float32),
            "action": random.normal(size=(length, 2)),
            "next.reward": random.normal(size=length).astype(np.float32),
            "next.done": np.arange(length) == length - 1,
            "contact": random.normal(size=(length, 2, 3)).astype(np.float32),
            "phase": random.integers(0, 255, length).astype(np.uint8),
        },
        texts=texts,
        metadata={"seed": number, "success": number != 1, "operator": "Ada"},
    )


def sample_episodes(lengths: Sequence[int] = LENGTHS) -> Iterator[ForeignEpisode]:
    return (sample_episode(number, length) for number, length in enumerate(lengths))


def sample_export(lengths: Sequence[int] = LENGTHS) -> Export:
    return Export(
        episodes=sample_episodes(lengths),
        count=len(lengths),
        rate_hz=RATE,
        images=(FRONT, WRIST),
        names={"observation.state": ("x", "y", "z"), "action": ("left", "right")},
        facts={},
        ours={"mapping": {"kept": True}},
    )
