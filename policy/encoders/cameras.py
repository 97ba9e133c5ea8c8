"""Which cameras a policy sees in training, so that it learns to do without one.

Shapes: B observations, C cameras. What a missing camera does to the tokens is `looped_dit`'s; how a
robot says that it lacks one is `absent_cameras`.
"""

import torch
from torch import Tensor


def drop_cameras(available: Tensor, chances: Tensor, dropout: float) -> Tensor:
    """Which cameras are left (B, C) bool when each is hidden with chance `dropout`, in training.

    `chances` (B, C) in [0, 1), drawn for the whole batch as those of `training/augmentation` are.
    An observation keeps at least one of the cameras that it has, that of the largest chance.
    """
    drawn = torch.where(available, chances, -1.0)
    largest = drawn == drawn.amax(1, keepdim=True)
    return available & (largest | (chances >= dropout))
