import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from loopdit.policy.flow_matching import integrate, interpolate, sample_times
from loopdit.policy.objectives.flow import Flow


def test_flow_is_what_was_shipped_to_the_bit():
    generator = torch.Generator().manual_seed(0)
    chunk, noise = torch.randn(2, 5, 8, 3, generator=generator)
    times = torch.rand(5, generator=generator)
    flow = Flow()

    def model(sample: Tensor, level: Tensor) -> Tensor:
        return torch.cos(3 * sample) + level[:, None, None]

    assert torch.equal(flow.noised(chunk, noise, times), interpolate(noise, chunk, times))
    assert torch.equal(flow.sample(model, noise, 10), integrate(model, noise, 10))
    drawn = [f(100, torch.Generator().manual_seed(1)) for f in (flow.levels, sample_times)]
    assert torch.equal(*drawn)

    sample, dt = noise, torch.full((5,), 0.1)
    for i in range(10):
        sample = flow.step(model, sample, torch.full((5,), i / 10), dt)
    assert torch.equal(sample, integrate(model, noise, 10))


@pytest.mark.parametrize(("sampler", "order"), [("euler", 1), ("heun", 2)])
def test_a_sampler_has_its_order_where_the_path_is_known_in_closed_form(sampler: str, order: int):
    """For chunks N(0, s^2) and noise N(0, 1) the best guess of the chunk is linear in the sample,
    m(t) x, and the flow scales the noise by sqrt(t^2 s^2 + (1 - t)^2): at the end by s."""
    s = 0.5

    def best_guess(sample: Tensor, level: Tensor) -> Tensor:
        t = level.double()[:, None, None]
        return t * s**2 / (t**2 * s**2 + (1 - t) ** 2) * sample

    noise = torch.ones(1, 1, 1, dtype=torch.float64)
    errors = [abs(float(Flow(sampler).sample(best_guess, noise, n)) - s) for n in (40, 80, 160)]
    measured = [math.log2(a / b) for a, b in pairwise(errors)]
    assert all(abs(found - order) < 0.15 for found in measured), (errors, measured)
