"""The episodes that benchmarks of data read: frames as a simulator renders them, without noise.

Frames (STEPS, SIZE, SIZE, 3) of each camera show discs that move over a shaded floor of tiles. They
compress better than a camera's.
"""

from collections.abc import Iterator

import numpy as np

from loopdit.datasets.spec import PolicySpec, TensorSpec
from loopdit.datasets.store import ACTION, Episode

SIZE, RATE, EPISODES, STEPS = 128, 20, 100, 60
CAMERAS = ("images.front", "images.wrist")
SPEC = PolicySpec(
    observations=(
        *(TensorSpec(name, (SIZE, SIZE, 3), "uint8") for name in CAMERAS),
        TensorSpec("proprio", (13,), "float32"),
    ),
    action=TensorSpec(ACTION, (7,), "float32"),
    action_frame="of no robot",
    control_period_s=1 / RATE,
)


def rendered_episode(seed: int) -> Episode:
    """One episode; the seed alone decides its content."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) / SIZE
    tiles = (np.floor(x / (0.15 + 0.5 * y) * 3) + np.floor(1.2 / (0.1 + y) * 2)) % 2
    floor = np.stack([90 + 60 * tiles + 40 * y, 100 + 50 * tiles, 120 + 40 * tiles], axis=-1)
    return Episode(
        observations={
            **{name: np.stack(list(_frames(random, floor, x, y))) for name in CAMERAS},
            "proprio": random.normal(size=(STEPS, 13)).astype(np.float32),
        },
        actions=random.uniform(-1, 1, (STEPS, 7)).astype(np.float32),
        instruction="move the discs",
        success=True,
        seed=seed,
    )


def _frames(
    random: np.random.Generator, floor: np.ndarray, x: np.ndarray, y: np.ndarray
) -> Iterator[np.ndarray]:
    places, speeds = random.random((3, 2)), random.uniform(-0.01, 0.01, (3, 2))
    colours = random.random((3, 3)) * 255
    for _ in range(STEPS):
        frame = floor.copy()
        places = (places + speeds) % 1
        for place, colour in zip(places, colours, strict=True):
            distance = np.hypot(x - place[0], y - place[1])[..., None]
            frame = np.where(distance < 0.1, colour * (1 - 4 * distance) + 40, frame)
        yield np.clip(frame, 0, 255).astype(np.uint8)
