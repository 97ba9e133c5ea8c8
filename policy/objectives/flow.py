"""Rectified flow (arXiv 2209.03003): the model says the chunk at the end of the sample's line.

A model that sees a point of the straight line between noise (level 0) and chunk (level 1), and its
level, predicts the chunk; the line's velocity follows from it. Predicting the chunk rather than the
velocity spares a small model from having to copy its noise through its width
(docs/experiments/2026-11-23-lift.md). Shapes as in `objective`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from loopdit.policy.objectives.objective import (
    CLEAN,
    EULER,
    Predict,
    SaysChunk,
    after,
    keep_known,
    per_action,
    require_steps,
    walk,
)

# Nearer to the chunk than this there is no velocity: it is 0 / 0, and t + dt misses 1 by rounding.
_NEAR = 1e-4

# Training levels are drawn from Beta(1, 1.5): more of them near the noise, where the chunk is
# decided, than near the end, where only the last polish is left.
_BETA = 1.5


@dataclass(frozen=True)
class Flow(SaysChunk):
    """See `objective.Objective`. `sampler` is euler, or heun: second order, two passes a step."""

    sampler: str = EULER

    def levels(self, count: int, generator: torch.Generator) -> Tensor:
        """Beta(1, 1.5): more of them near the noise."""
        # Beta(1, b) has the closed-form inverse 1 - (1 - u)^(1/b); torch's takes no generator.
        uniform = torch.rand(count, generator=generator, device=generator.device)
        return 1 - (1 - uniform) ** (1 / _BETA)

    def noised(self, chunk: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """The point of the straight line from noise to chunk."""
        return torch.lerp(noise, chunk, per_action(level))

    def step(
        self,
        predict: Predict,
        sample: Tensor,
        level: Tensor,
        dt: Tensor,
        fresh: Tensor | None = None,
    ) -> Tensor:
        """One Euler or Heun step; Heun's last one, into level 1, is Euler's.

        There the line's velocity (chunk - sample) / (1 - level) has no value. A graph has no
        branches, so it asks the model at level 1 too and forgets the answer; `sample` does not.
        """
        chunk = predict(sample, level)
        moved = _euler(sample, chunk, level, dt)
        if self.sampler == EULER:
            return moved
        reached = after(level, dt)
        corrected = _heun(sample, chunk, moved, predict(moved, reached), level, reached)
        return torch.where(per_action(reached) < CLEAN - _NEAR, corrected, moved)

    def sample(
        self,
        predict: Predict,
        noise: Tensor,
        steps: int,
        fresh: Tensor | None = None,
        known: Tensor | None = None,
    ) -> Tensor:
        """See `Objective.sample`."""
        require_steps(steps)
        return walk(self, predict, noise, steps, known=known, last=Flow(EULER))

    def predictions(self, steps: int) -> int:
        """One a step by Euler, two by Heun but for the last."""
        require_steps(steps)
        return steps if self.sampler == EULER else 2 * steps - 1


def _euler(sample: Tensor, chunk: Tensor, level: Tensor, dt: Tensor) -> Tensor:
    """The sample moved by dt towards the predicted chunk."""
    if level.ndim == 1:
        return sample + per_action(dt / (CLEAN - level)) * (chunk - sample)
    share = (after(level, dt) - level) / (CLEAN - level).clamp_min(_NEAR)
    return keep_known(sample, sample + per_action(share) * (chunk - sample), level)


def _heun(
    sample: Tensor,
    chunk: Tensor,
    moved: Tensor,
    next_chunk: Tensor,
    level: Tensor,
    reached: Tensor,
) -> Tensor:
    """The mean of the velocities at both ends; `moved` is Euler's guess of the far one."""
    left, next_left = (per_action(CLEAN - t).clamp_min(_NEAR) for t in (level, reached))
    velocity = (chunk - sample) / left + (next_chunk - moved) / next_left
    return sample + 0.5 * per_action(reached - level) * velocity
