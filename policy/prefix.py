"""A chunk that begins with the actions in flight: where they are, and what becomes of them.

Shapes: B batch, H action horizon, A action dim, F most actions in flight. Normalised units;
`committed` (B, F, A + 1) as in `looped_dit.Inputs`.
"""

import torch
from torch import Tensor
from torch.nn import functional

from loopdit.policy.objectives.objective import Predict


def is_committed(committed: Tensor, horizon: int) -> Tensor:
    """`Inputs.committed` (B, F, A + 1) -> (B, H) bool."""
    return functional.pad(committed[..., -1], (0, horizon - committed.shape[1])) > 0


def with_prefix(sample: Tensor, committed: Tensor) -> Tensor:
    """The sample (B, H, A) with what is committed (B, F, A + 1) in its place."""
    told = functional.pad(committed, (0, 0, 0, sample.shape[1] - committed.shape[1]))
    return torch.where(told[..., -1:] > 0, told[..., :-1], sample)


def of_the_rest(predict: Predict) -> Predict:
    """`predict`, asked with a level for each action (B, H): what is known is at 1, which the model
    is told by its context, and all the rest at one time (B,)."""
    return lambda sample, level: predict(sample, level.amin(1))
