"""Guidance against numbers worked out by hand and against a slow sampler in the paper's terms."""

import pytest
import torch
from torch import Tensor

from loopdit.policy.guidance import BETA, FULL, IDENTITY, JACOBIANS, guidance_weight, guided
from loopdit.policy.objectives.flow import Flow

BATCH, HORIZON, DIM, STEPS = 2, 6, 3, 5


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


NOISE, WANTED = drawn(BATCH, HORIZON, DIM, seed=1), drawn(BATCH, HORIZON, DIM, seed=2)
WEIGHT = torch.linspace(1, 0, HORIZON, dtype=torch.float64)[None, :, None]
MIX, AIM = drawn(HORIZON * DIM, HORIZON * DIM, seed=3) / 10, drawn(BATCH, HORIZON, DIM, seed=4)


def velocity(sample: Tensor, level: Tensor) -> Tensor:
    """Of a small network that looks at everything."""
    mixed = torch.tanh(sample.flatten(1) @ MIX.T + level[:, None]).reshape(sample.shape)
    return AIM - sample + mixed


def predict(sample: Tensor, level: Tensor) -> Tensor:
    return sample + (1 - level[:, None, None]) * velocity(sample, level)


def slow_sample(jacobian: str, forward: bool = True) -> Tensor:
    """The algorithm as published, time from noise to action or, with its signs turned, back."""
    sample = NOISE.clone()
    for step in range(STEPS):
        tau = step / STEPS
        at = sample.clone().requires_grad_(True)
        v = velocity(at, torch.full((BATCH,), tau, dtype=torch.float64))
        clean = at + (1 - tau) * v
        error = ((WANTED - clean) * WEIGHT).detach()
        pull = torch.autograd.grad(clean, at, error)[0] if jacobian == FULL else error
        r2 = (1 - tau) ** 2 / (tau**2 + (1 - tau) ** 2)
        gw = BETA if tau == 0 else min(BETA, (1 - tau) / tau / r2)
        if forward:
            sample = sample + (v.detach() + gw * pull) / STEPS
        else:  # openpi's and lerobot's convention: t = 1 - tau, velocity towards the noise
            sample = sample + (-1 / STEPS) * (-v.detach() - gw * pull)
    return sample


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (5, [5, 4.25, 2.167, 2.167, 4.25]),
        (10, [5, 5, 4.25, 2.762, 2.167, 2, 2.167, 2.762, 4.25, 5]),
    ],
)
def test_the_weight_of_the_guidance_is_the_papers(steps: int, expected: list[float]):
    found = guidance_weight(torch.arange(steps) / steps)
    torch.testing.assert_close(found, torch.tensor(expected), atol=5e-4, rtol=0)
    assert guidance_weight(torch.tensor([0.0, 1.0])).tolist() == [BETA, BETA]


@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("jacobian", JACOBIANS)
def test_a_guided_chunk_is_that_of_the_published_algorithm_in_either_time(
    jacobian: str, forward: bool
):
    found = Flow().sample(guided(predict, WANTED, WEIGHT, jacobian), NOISE, STEPS)
    torch.testing.assert_close(found, slow_sample(jacobian, forward), atol=1e-12, rtol=0)


@pytest.mark.parametrize("jacobian", JACOBIANS)
def test_nothing_wanted_changes_nothing_to_the_bit(jacobian: str):
    free = Flow().sample(predict, NOISE, STEPS)
    nothing = guided(predict, WANTED, torch.zeros_like(WEIGHT), jacobian)
    assert torch.equal(Flow().sample(nothing, NOISE, STEPS), free)


@pytest.mark.parametrize("jacobian", JACOBIANS)
def test_a_prediction_that_is_what_is_wanted_is_left_as_it_is(jacobian: str):
    level = torch.full((BATCH,), 0.4, dtype=torch.float64)
    said = predict(NOISE, level)
    assert torch.equal(guided(predict, said, WEIGHT, jacobian)(NOISE, level), said)


def test_of_a_linear_network_the_gradient_is_its_transpose():
    level = torch.full((BATCH,), 0.3, dtype=torch.float64)

    def linear(sample: Tensor, level: Tensor) -> Tensor:
        moved = (sample.flatten(1) @ MIX.T).reshape(sample.shape)
        return sample + (1 - level[:, None, None]) * moved

    pulled = guided(linear, WANTED, WEIGHT, FULL)(NOISE, level)
    error = (WEIGHT * (WANTED - linear(NOISE, level))).flatten(1)
    matrix = torch.eye(HORIZON * DIM, dtype=torch.float64) + 0.7 * MIX
    strength = 0.7 * guidance_weight(torch.tensor(0.3, dtype=torch.float64))
    expected = linear(NOISE, level) + strength * (error @ matrix).reshape(NOISE.shape)
    torch.testing.assert_close(pulled, expected, atol=1e-12, rtol=0)


def test_an_ideal_denoiser_is_moved_by_identity_and_not_by_the_full_jacobian():
    """It says the same chunk for every sample, so its gradient is zero."""
    level = torch.full((BATCH,), 0.5, dtype=torch.float64)

    def ideal(sample: Tensor, level: Tensor) -> Tensor:
        return AIM + 0.0 * sample

    assert torch.equal(guided(ideal, WANTED, WEIGHT, FULL)(NOISE, level), AIM)
    moved = guided(ideal, WANTED, WEIGHT, IDENTITY)(NOISE, level) - AIM
    torch.testing.assert_close(moved, 0.5 * 2 * WEIGHT * (WANTED - AIM))


def test_a_chunk_comes_nearer_to_what_is_wanted_where_that_counts():
    free, kept = (
        Flow().sample(each, NOISE, STEPS) for each in (predict, guided(predict, WANTED, WEIGHT))
    )
    before, after = ((each - WANTED).abs().mean((0, 2)) for each in (free, kept))
    assert after[0] < 0.3 * before[0]
    assert (after[:-1] < before[:-1]).all()
