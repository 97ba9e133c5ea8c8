"""Input injection: each loop starts from a mix of its state and of what the first loop was given.

Shapes: B samples, N tokens, D width.

Without it nothing but the start ties the state to the input: at a fixed point that many starts
share, the observation is forgotten. With it the fixed point is a function of the input (deep
equilibrium models, arXiv 1909.01377, add the input at every step), and a residual block, whose
Jacobian I + J is hardly ever below 1 in norm, becomes a map (I + J) a that can be.

    h <- x + a (h - x)      a in (0, 1), one number a channel

Recent looped transformers add the input (arXiv 2311.12424: a = 1 and so no contraction of its own),
or map state and input by one matrix (arXiv 2502.05171), whose norm nothing bounds. A carry per
channel that is below 1 by construction is Parcae's (OpenReview ri0LAMdhd9, 2026); the input's share
1 - a here makes h = x stay as it is, to the bit: the first loop is that of a model without it.
"""

import torch
from torch import Tensor, nn

from loopdit.policy.fixed_point.step import Step


class InputInjection(nn.Module):
    """`carry` is where a starts in all channels: what is left of a difference after one loop.

    Half by default: after four loops the state still differs from its input by what they did.
    """

    def __init__(self, width: int, carry: float = 0.5) -> None:
        super().__init__()
        if not 0 < carry < 1:
            raise ValueError(f"carry={carry} is not between 0 and 1.")
        self.logit = nn.Parameter(torch.logit(torch.full((width,), carry)))

    @property
    def carry(self) -> Tensor:
        """a (D,)."""
        return self.logit.sigmoid()

    def forward(self, state: Tensor, start: Tensor) -> Tensor:
        """state (B, N, D), and the one that the first loop was given -> (B, N, D)."""
        return torch.lerp(start, state, self.carry)


def injected(step: Step, injection: InputInjection, start: Tensor) -> Step:
    """A step that mixes `start` (B, N, D) into the state before `step` has it."""
    return lambda state, loop: step(injection(state, start), loop)
