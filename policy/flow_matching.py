"""Rectified flow (arXiv 2209.03003) between noise at time 0 and an action chunk at time 1.

A model that sees a point of the straight line between them, and its time, predicts the chunk at
the line's end; the line's velocity follows from it. Predicting the chunk rather than the velocity
spares a small model from having to copy its noise through its width
(docs/experiments/2026-11-23-lift.md).
"""

from collections.abc import Callable

import torch
from torch import Tensor

CLEAN = 1.0

# Training times are drawn from Beta(1, 1.5): more of them near the noise, where the chunk is
# decided, than near the end, where only the last polish is left.
_BETA = 1.5


def sample_times(count: int, generator: torch.Generator) -> Tensor:
    """Training times (count,) in [0, 1]."""
    # Beta(1, b) has the closed-form inverse 1 - (1 - u)^(1/b); torch's sampler takes no generator.
    uniform = torch.rand(count, generator=generator, device=generator.device)
    return 1 - (1 - uniform) ** (1 / _BETA)


def interpolate(noise: Tensor, chunk: Tensor, times: Tensor) -> Tensor:
    """The point at `times` (B,) of the line from noise (B, H, A) to chunk (B, H, A)."""
    return torch.lerp(noise, chunk, times[:, None, None])


def euler_step(sample: Tensor, chunk: Tensor, times: Tensor, dt: Tensor) -> Tensor:
    """Move the sample (B, H, A) from times (B,) < 1 by dt (B,) towards the predicted chunk."""
    share = dt / (CLEAN - times)
    return sample + share[:, None, None] * (chunk - sample)


def integrate(predict: Callable[[Tensor, Tensor], Tensor], noise: Tensor, steps: int) -> Tensor:
    """Euler steps from noise (B, H, A) at time 0 to a chunk at time 1.

    `predict` takes the sample (B, H, A) and times (B,) and returns the chunk (B, H, A).
    """
    sample = noise
    dt = torch.full((len(noise),), 1 / steps, device=noise.device, dtype=noise.dtype)
    for step in range(steps):
        times = torch.full_like(dt, step / steps)
        sample = euler_step(sample, predict(sample, times), times, dt)
    return sample
