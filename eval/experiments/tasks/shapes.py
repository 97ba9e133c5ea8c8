"""Coloured shapes that move across a 32 x 40 frame, or bounce off its edges, on the v1 canvas.

Four frames, two seen and two to predict, three moves between two frames. Each shape keeps its
velocity; with `bounce` a coordinate that would leave the frame is reflected. The first shape is the
agent: its proprio is given, the actions are its moves, and the reward of a frame says how near it
is to the second, the goal, which is only seen. The instruction names kind and colour of both.

So all that is to be predicted follows from what is given, but for what lies hidden behind another
shape. Values are in [-1, 1]; places are pixels, (y, x), a shape's is its centre.

Out of distribution, one thing at a time: `fast` (up to twice the speed), `many` (five shapes
instead of three), `large` (half as large again), `colour` (all in one that training never shows).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from loopdit.eval.experiments.tasks.canvas_task import HELD_OUT, TRAIN, random_stream, tensors
from loopdit.policy.canvas.layout import CanvasLayout, v1_layout
from loopdit.policy.canvas.modalities import ModalityConfig, patches

SIZE = np.array([32.0, 40.0])
FRAMES, MOVES = 4, 3
_KINDS = ("square", "disc", "diamond")
# The last is for the split `colour` alone.
COLOURS = np.array(
    [[1, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, -1], [1, -1, 1], [-1, 1, 1.0]], np.float32
)
_FASTEST = 1.5  # pixels a move, along each axis
_WORDS = 24


@dataclass(frozen=True)
class Scene:
    """B scenes of S shapes: kind and colour (B, S) as indices, radius (B, S), places
    (B, M + 1, S, 2) before and after each of M moves, velocity (B, S, 2) at the first."""

    kind: np.ndarray
    colour: np.ndarray
    radius: np.ndarray
    places: np.ndarray
    velocity: np.ndarray


@dataclass(frozen=True)
class ShapesTask:
    """See the module."""

    bounce: bool = False

    @property
    def layout(self) -> CanvasLayout:
        """The paper's."""
        return v1_layout()

    @property
    def modalities(self) -> ModalityConfig:
        """The paper's."""
        return ModalityConfig()

    @property
    def main(self) -> str:
        """What the frames will show."""
        return "future_frames"

    @property
    def splits(self) -> tuple[str, ...]:
        """See the module."""
        return (TRAIN, HELD_OUT, "fast", "many", "large", "colour")

    def canvases(self, count: int, seed: int, split: str) -> dict[str, Tensor]:
        """See CanvasTask."""
        return tensors(_canvas(self.scenes(count, seed, split)))

    def scenes(self, count: int, seed: int, split: str) -> Scene:
        """What the canvases show."""
        rng = random_stream(seed, split, self.splits)
        shapes = 5 if split == "many" else 3
        colours = len(COLOURS) - 1
        drawn = rng.integers(colours, size=(count, shapes))
        colour = np.full_like(drawn, colours) if split == "colour" else drawn
        kind = rng.integers(len(_KINDS), size=(count, shapes))
        radius = rng.uniform(3, 4.5, size=(count, shapes)) * (1.5 if split == "large" else 1)
        fastest = _FASTEST * (2 if split == "fast" else 1)
        low, high = radius[..., None], SIZE - radius[..., None]
        start, end = (rng.uniform(low, high) for _ in range(2))
        moves = FRAMES * MOVES
        if self.bounce:
            velocity = rng.uniform(-fastest, fastest, size=start.shape)
        else:  # never past the place that it heads for, so that nothing leaves the frame
            velocity = np.clip((end - start) / moves, -fastest, fastest)
        times = np.arange(moves + 1)[:, None, None]
        places = start[:, None] + times * velocity[:, None]
        if self.bounce:
            places = reflected(places, low[:, None], high[:, None])
        return Scene(kind, colour, radius, places, velocity)


def reflected(places: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Where what moves freely to `places` is, if it is reflected at `low` and `high`."""
    span = high - low
    along = np.mod(places - low, 2 * span)
    return low + np.minimum(along, 2 * span - along)


def drawn(scene: Scene) -> np.ndarray:
    """The frames (B, FRAMES, 3, 32, 40) in [-1, 1]; later shapes are in front of earlier ones."""
    height, width = SIZE.astype(int)
    at = scene.places[:, :-1:MOVES].astype(np.float32)  # (B, F, S, 2)
    centres = np.arange(max(height, width), dtype=np.float32) + 0.5
    down = np.abs(centres[:height] - at[..., 0, None])  # (B, F, S, 32)
    across = np.abs(centres[:width] - at[..., 1, None])  # (B, F, S, 40)
    frames = np.full((*at.shape[:2], 3, height, width), -1.0, np.float32)
    for shape in range(at.shape[2]):
        y, x = down[:, :, shape, :, None], across[:, :, shape, None, :]
        radius = scene.radius[:, shape, None, None, None].astype(np.float32)
        kind = scene.kind[:, shape, None, None, None]
        distance = np.select([kind == 0, kind == 1], [np.maximum(y, x), np.hypot(y, x)], y + x)
        colour = COLOURS[scene.colour[:, shape]][:, None, :, None, None]
        frames = np.where((distance <= radius)[:, :, None], colour, frames)
    return frames


def _canvas(scene: Scene) -> dict[str, np.ndarray]:
    frames = patches(torch.from_numpy(drawn(scene))).numpy()  # (B, 80, 192)
    pixels = frames.shape[1] // 2
    agent, goal = scene.places[:, :, 0], scene.places[:, :, 1]  # (B, M + 1, 2)
    place, moved = agent / SIZE * 2 - 1, np.diff(agent, axis=1) / _FASTEST
    actions = np.concatenate([moved, place[:, 1:]], axis=-1)  # how far, and where to: (B, M, 4)
    given = actions.shape[1] // 2
    proprio = np.zeros((len(agent), 2, 11))
    proprio[..., :2], proprio[..., 2:4] = place[:, :given:MOVES], moved[:, :given:MOVES]
    proprio[..., 4] = scene.radius[:, :1] / 4
    text = np.zeros((len(agent), _WORDS), np.int64)
    kinds, colours = 1 + scene.kind, 1 + len(_KINDS) + scene.colour
    text[:, :4] = np.stack([kinds[:, 0], colours[:, 0], kinds[:, 1], colours[:, 1]], axis=1)
    distance = np.linalg.norm(agent - goal, axis=-1)[:, :-1:MOVES]  # (B, F)
    return {
        "text": text,
        "frames": frames[:, :pixels],
        "proprio": proprio,
        "actions": actions[:, :given],
        "future_frames": frames[:, pixels:],
        "reward": (1 - 2 * distance[:, 2:] / np.linalg.norm(SIZE))[..., None],
        "future_actions": actions[:, given:],
    }
