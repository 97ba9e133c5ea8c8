"""Training windows as they are when actions are in flight: some are committed, the rest is learned.

Shapes: B windows, H action horizon, A action dim, F most actions in flight.

How many are committed, d, is drawn for each window, because a robot's delay is not known while
training (arXiv 2512.05964): from none to F, with a chance that goes as 1 / (d + 1). Drawn alike,
the case of none was one window in seven at F = 6, and a policy whose chunk begins with them had 28
of 50 successes there, where it had 50 at a delay of one step and one that is told nothing had 47
(docs/experiments/2026-11-25-in-flight.md). Now none is 39 % and six are 6 %.

What is committed are the actions that were executed, not those that an expert would have taken
there: a policy that is told of a detour learns to come back from it, and one that only ever met its
expert's own plan would learn to ignore what it is told.
"""

import numpy as np
import torch
from torch import Tensor

from loopdit.datasets.spec import COMMITTED
from loopdit.policy.looped_dit_config import ROLLED, LoopedDiTConfig


def extra_horizon(config: LoopedDiTConfig) -> int:
    """How many actions beyond the horizon a window needs: a rolled policy's chunk begins later."""
    return config.in_flight if config.told == ROLLED else 0


def with_committed(
    config: LoopedDiTConfig,
    observation: dict[str, Tensor],
    actions: Tensor,
    valid: Tensor,
    executed: Tensor,
    chances: Tensor,
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Observation with COMMITTED, actions (B, H, A) and valid (B, H) of the chunk to learn.

    actions, valid (B, H + extra_horizon, ...); executed (B, F, A) raw, from the window's own step
    on; chances (B,) in [0, 1) say how many of those are committed.
    """
    most = config.in_flight
    count = _count(config, chances)
    steps = torch.arange(most, device=actions.device)
    there = (steps < count[:, None])[..., None].to(executed.dtype)  # (B, F, 1)
    observation = {**observation, COMMITTED: torch.cat([there * executed, there], dim=-1)}
    if config.told != ROLLED:
        return observation, actions, valid
    ahead = count[:, None] + torch.arange(config.action_horizon, device=actions.device)  # (B, H)
    rows = torch.arange(len(actions), device=actions.device)[:, None]
    return observation, actions[rows, ahead], valid[rows, ahead]


def learned(config: LoopedDiTConfig, valid: np.ndarray, chances: Tensor | None) -> np.ndarray:
    """How many actions of each window are learned from (B,), of valid (B, H + extra_horizon)."""
    if chances is None:
        return valid.sum(axis=1)
    first = _count(config, chances).cpu().numpy()[:, None]
    steps = np.arange(valid.shape[1])
    return (valid & (steps >= first) & (steps < first + config.action_horizon)).sum(axis=1)


def _count(config: LoopedDiTConfig, chances: Tensor) -> Tensor:
    """(B,) in [0, 1) -> (B,) int64 from 0 to F, d where the chance is within its share."""
    shares = 1 / torch.arange(1, config.in_flight + 2, device=chances.device)
    below = shares.cumsum(0) / shares.sum()  # (F + 1,): of at most d
    return torch.bucketize(chances, below[:-1], right=True)
