import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from loopdit.policy.objectives.flow import Flow


@given(steps=st.integers(1, 50), sampler=st.sampled_from(["euler", "heun"]))
def test_an_ideal_prediction_is_reached_exactly_in_any_number_of_steps(steps: int, sampler: str):
    noise, chunk = torch.randn(2, 4, 3), torch.randn(2, 4, 3)
    reached = Flow(sampler).sample(lambda sample, level: chunk, noise, steps)
    torch.testing.assert_close(reached, chunk)


def test_euler_steps_walk_the_line_between_noise_and_chunk():
    flow, noise, chunk = Flow(), torch.zeros(1, 2, 1), torch.ones(1, 2, 1)
    sample = flow.noised(chunk, noise, torch.tensor([0.25]))
    moved = flow.step(lambda x, t: chunk, sample, torch.tensor([0.25]), torch.tensor([0.5]))
    torch.testing.assert_close(moved, flow.noised(chunk, noise, torch.tensor([0.75])))


def test_euler_is_what_was_shipped_to_the_bit():
    """The loop written out as it was when the shipped bundle was exported."""
    noise = torch.randn(5, 8, 3, generator=torch.Generator().manual_seed(0))

    def model(sample: Tensor, level: Tensor) -> Tensor:
        return torch.cos(3 * sample) + level[:, None, None]

    sample, dt = noise, torch.full((5,), 1 / 10)
    for i in range(10):
        t = torch.full((5,), i / 10)
        sample = sample + (dt / (1.0 - t))[:, None, None] * (model(sample, t) - sample)
    assert torch.equal(Flow().sample(model, noise, 10), sample)


def test_training_levels_follow_beta_1_over_1_5():
    levels = Flow().levels(200_000, torch.Generator().manual_seed(0))
    assert levels.min() >= 0
    assert levels.max() <= 1
    # Beta(1, 1.5): mean 0.4, variance 1.5 / (2.5^2 * 3.5). Six standard errors of the mean.
    assert levels.mean().item() == pytest.approx(0.4, abs=6 * (0.0686 / 200_000) ** 0.5)
    assert levels.var().item() == pytest.approx(1.5 / (2.5**2 * 3.5), rel=0.03)


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
