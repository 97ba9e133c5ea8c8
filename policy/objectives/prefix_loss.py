"""Training on chunks whose first actions are known already, because they will be executed anyway.

Shapes: B batch, H action horizon, A action dim. While a chunk is computed, d actions of the one
before it are still executed. The model learns to continue them: in training the first d actions of
the chunk are given clean, at level 1, for a random d, and the loss is of the rest (training-time
action conditioning, arXiv 2512.05964). At run time nothing has to be guided.

The paper takes one mean over all remaining actions of the batch; here a window's remaining actions
share the weight of all its own. So a window counts the same whatever its delay, and the losses of
the pieces of a batch still add up to those of the whole.
"""

import torch
from torch import Tensor

from loopdit.policy.objectives.objective import CLEAN


def drawn_delays(uniform: Tensor, most: int, valid: Tensor) -> Tensor:
    """Delays (B,) int64 from 0 to `most`, each as likely, from uniform numbers (B,) in [0, 1).

    `valid` (B, H) marks the actions inside the episode: at least one of them is left to learn.
    """
    delays = (uniform * (most + 1)).long().clamp(max=most)  # 1 - 2^-25 times a lot rounds up
    return torch.minimum(delays, (valid.sum(1) - 1).clamp(min=0))


def prefix(delays: Tensor, horizon: int) -> Tensor:
    """(B, H) bool: the first `delays` (B,) actions of each chunk."""
    return torch.arange(horizon, device=delays.device) < delays[:, None]


def prefix_levels(levels: Tensor, known: Tensor) -> Tensor:
    """Levels (B,), and 1 where `known` (B, H): (B, H)."""
    return torch.where(known, CLEAN, levels[:, None])


def remaining_weights(valid: Tensor, known: Tensor) -> Tensor:
    """Weights (B, H) float32 of a loss: 0 where `known` or not `valid`, (B, H) bool each.

    Those of a window add up to its valid actions; all are 0 where none of these is left.
    """
    left = valid & ~known
    share = valid.sum(1) / left.sum(1).clamp(min=1)
    return left * share[:, None]


def weighted_mean(error: Tensor, weights: Tensor) -> Tensor:
    """The mean of (B, H, A) by weights (B, H): a scalar, 0 where all weights are."""
    total = weights.sum() * error.shape[-1]
    return (weights[..., None] * error).sum() / total.clamp(min=1)
