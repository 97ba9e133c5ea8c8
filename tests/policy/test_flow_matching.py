import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loopdit.policy.flow_matching import euler_step, integrate, interpolate, sample_times


@given(steps=st.integers(1, 50))
def test_an_ideal_prediction_is_reached_exactly_in_any_number_of_steps(steps: int):
    noise, chunk = torch.randn(2, 4, 3), torch.randn(2, 4, 3)
    reached = integrate(lambda sample, times: chunk, noise, steps)
    torch.testing.assert_close(reached, chunk)


def test_euler_steps_walk_the_line_between_noise_and_chunk():
    noise, chunk = torch.zeros(1, 2, 1), torch.ones(1, 2, 1)
    sample = interpolate(noise, chunk, torch.tensor([0.25]))
    moved = euler_step(sample, chunk, torch.tensor([0.25]), torch.tensor([0.5]))
    torch.testing.assert_close(moved, interpolate(noise, chunk, torch.tensor([0.75])))


def test_training_times_follow_beta_1_over_1_5():
    times = sample_times(200_000, torch.Generator().manual_seed(0))
    assert times.min() >= 0
    assert times.max() <= 1
    # Beta(1, 1.5): mean 0.4, variance 1.5 / (2.5^2 * 3.5). Six standard errors of the mean.
    assert times.mean().item() == pytest.approx(0.4, abs=6 * (0.0686 / 200_000) ** 0.5)
    assert times.var().item() == pytest.approx(1.5 / (2.5**2 * 3.5), rel=0.03)
