"""Direct regression: one pass without noise, from which the model says the mean chunk.

Shapes as in `objective`. The sample is zero and the level 0, but for known actions, which are shown
as they are at level 1. Where demonstrations choose between ways, their mean may be none of them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from loopdit.policy.objectives.objective import (
    CLEAN,
    Predict,
    SaysChunk,
    keep_known,
    require_steps,
    walk,
)


@dataclass(frozen=True)
class Regression(SaysChunk):
    """See `objective.Objective`. Steps are ignored."""

    def levels(self, count: int, generator: torch.Generator) -> Tensor:
        """All 0."""
        return torch.zeros(count, device=generator.device)

    def noised(self, chunk: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """Zero, and known actions."""
        return keep_known(chunk, torch.zeros_like(chunk), level)

    def step(
        self,
        predict: Predict,
        sample: Tensor,
        level: Tensor,
        dt: Tensor,
        fresh: Tensor | None = None,
    ) -> Tensor:
        """The prediction, wherever it is asked for: a second step repeats the first."""
        level = (level == CLEAN).to(level.dtype)
        seen = keep_known(sample, torch.zeros_like(sample), level)
        return keep_known(sample, predict(seen, level), level)

    def sample(
        self,
        predict: Predict,
        noise: Tensor,
        steps: int,
        fresh: Tensor | None = None,
        known: Tensor | None = None,
    ) -> Tensor:
        """One prediction, whatever `steps` and the noise are."""
        require_steps(steps)
        return walk(self, predict, noise, 1, known=known)

    def predictions(self, steps: int) -> int:
        """One."""
        require_steps(steps)
        return 1
