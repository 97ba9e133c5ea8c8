"""A world for the v1 canvas: a bright square moves by its actions and is paid for its place.

Frames are 32 x 40 and the square is a patch of 8 x 8 that moves a patch a frame, or rests, along
each axis, and stops at the border. The three actions between two frames are the same all the time.
So everything that is to be predicted follows from what is given, and nothing of it is constant.
"""

import torch
from torch import Tensor
from torch.nn import functional

from loopdit.policy.canvas.modalities import PATCH, patches

_LIMIT = torch.tensor([3, 4])  # of the square's (row, column), in patches


def moving_squares(count: int, seed: int) -> dict[str, Tensor]:
    """`count` canvases of `v1_layout` with the default modalities."""
    generator = torch.Generator().manual_seed(seed)
    velocity = torch.randint(-1, 2, (count, 2), generator=generator)  # patches a frame
    colour = torch.randint(3, (count,), generator=generator)
    place = torch.stack([torch.randint(n + 1, (count,), generator=generator) for n in (3, 4)], 1)
    at = [place]
    for _ in range(3):
        at.append((at[-1] + velocity).clamp(min=torch.tensor([0, 0]), max=_LIMIT))
    frames = torch.stack([_drawn(place, colour) for place in at], dim=1)
    where = torch.stack(at, dim=1) / _LIMIT * 2 - 1  # (B, 4, 2) in [-1, 1]
    actions = functional.pad(velocity.float(), (0, 2))[:, None].expand(-1, 6, -1)
    return {
        "text": (colour + 1)[:, None].expand(-1, 24),
        "frames": patches(frames[:, :2]),
        "proprio": functional.pad(where[:, :2], (0, 9)),
        "actions": actions,
        "future_frames": patches(frames[:, 2:]),
        "reward": where[:, 2:, 1:],
        "future_actions": actions,
    }


def _drawn(place: Tensor, colour: Tensor) -> Tensor:
    """Squares at (row, column) of `place` (B, 2) -> frames (B, 3, 32, 40) in [-1, 1]."""
    rows = functional.one_hot(place[:, 0], 4)[:, None, :, None]
    columns = functional.one_hot(place[:, 1], 5)[:, None, None, :]
    channels = functional.one_hot(colour, 3)[:, :, None, None]
    lit = rows * columns * channels  # (B, 3, 4, 5)
    return 2.0 * lit.repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3) - 1
