"""Rectified flow (arXiv 2209.03003) between noise at time 0 and an action chunk at time 1.

A model that predicts the velocity `chunk - noise` at any point of the straight line between them
is trained by regression, and sampled by integrating the velocity in a few Euler steps.
"""

from collections.abc import Callable

import torch
from torch import Tensor

CLEAN = 1.0

# Training times are drawn from Beta(1, 1.5): the noisy half, where the mode is chosen, matters
# more to a chunk of actions than the last polish (measured on `lift`; the same choice as pi-0).
_BETA = (1.0, 1.5)


def sample_times(count: int, generator: torch.Generator) -> Tensor:
    """Training times (count,) in [0, 1]."""
    # Beta(1, b) has the closed-form inverse 1 - (1 - u)^(1/b); torch's sampler takes no generator.
    uniform = torch.rand(count, generator=generator)
    return 1 - (1 - uniform) ** (1 / _BETA[1])


def interpolate(noise: Tensor, chunk: Tensor, times: Tensor) -> Tensor:
    """The point at `times` (B,) of the line from noise (B, H, A) to chunk (B, H, A)."""
    return torch.lerp(noise, chunk, times[:, None, None])


def integrate(velocity: Callable[[Tensor, Tensor], Tensor], noise: Tensor, steps: int) -> Tensor:
    """Euler steps from noise (B, H, A) at time 0 to a sample at time 1.

    `velocity` takes the sample (B, H, A) and times (B,).
    """
    sample = noise
    for step in range(steps):
        times = torch.full((len(noise),), step / steps, device=noise.device, dtype=noise.dtype)
        sample = sample + velocity(sample, times) / steps
    return sample
