import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.policy.morphology.bodies import chain, star
from torch import Tensor

from loopdit.errors import ConfigError
from loopdit.policy.loops.config import LoopConfig
from loopdit.policy.morphology.embodiment import Embodiment
from loopdit.policy.morphology.morphology_dit import FARTHEST, MorphologyConfig, MorphologyDiT

SMALL = MorphologyConfig(
    width=32, heads=2, blocks=2, horizon=4, robots=2, loops=LoopConfig(loops=2)
)


def awake(config: MorphologyConfig = SMALL, seed: int = 0) -> MorphologyDiT:
    """A model none of whose parameters is at its start, where some are 0."""
    torch.manual_seed(seed)
    model = MorphologyDiT(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model


def inputs(body: Embodiment, config: MorphologyConfig = SMALL) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    observation = torch.randn(3, len(body.mean), generator=generator)
    sample = torch.randn(3, config.horizon, body.motors, generator=generator)
    return observation, sample, torch.rand(3, generator=generator)


def test_the_distance_bias_changes_nothing_at_the_start():
    torch.manual_seed(0)
    biased = MorphologyDiT(SMALL)
    assert biased.distance_bias is not None
    plain = copy.deepcopy(biased)
    plain.distance_bias = None
    for body in (chain(), star()):
        torch.testing.assert_close(
            biased(body, *inputs(body))[0], plain(body, *inputs(body))[0], rtol=1e-5, atol=1e-6
        )


def test_the_distance_bias_learns_and_then_matters():
    torch.manual_seed(0)
    model, body = MorphologyDiT(SMALL), chain()
    before, _ = model(body, *inputs(body))
    before.square().sum().backward()
    assert model.distance_bias is not None
    assert model.distance_bias.grad is not None
    seen = model.distance_bias.grad.abs().sum(0)
    assert (seen[:4] > 0).all()  # distances of the chain
    assert (seen[4:] == 0).all()
    with torch.no_grad():
        model.distance_bias[:, 0] = 3.0
    assert (model(body, *inputs(body))[0] - before).abs().max() > 1e-3


def test_the_bias_of_two_tokens_is_that_of_their_bodies_distance():
    model, body = awake(), chain()
    bias = model.bias(body)
    assert bias is not None
    assert model.distance_bias is not None
    at = [*range(4), *body.joint_body.tolist(), *body.motor_body.tolist()]
    for row, a in enumerate(at):
        for column, b in enumerate(at):
            distance = min(int(body.distances[a, b]), FARTHEST)
            assert torch.equal(bias[:, row, column], model.distance_bias[:, distance])


def test_bodies_listed_in_another_order_permute_their_tokens_and_nothing_else():
    model, body = awake(), chain()
    order = [2, 0, 3, 1]
    chunk, looped = model(body, *inputs(body))
    permuted_chunk, permuted = model(body.bodies_permuted(order), *inputs(body))
    torch.testing.assert_close(permuted_chunk, chunk, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        permuted.tokens[:, :4], looped.tokens[:, order], rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(permuted.tokens[:, 4:], looped.tokens[:, 4:], rtol=1e-4, atol=1e-5)
    assert (looped.tokens[:, :4] - looped.tokens[:, order]).abs().max() > 0.1


def test_an_observed_number_enters_through_the_token_of_its_joint_alone():
    model, body = awake(), chain()
    observation, sample, _ = inputs(body)
    before = model.tokens(body, observation, sample)
    for number in range(len(body.mean)):
        moved = observation.clone()
        moved[:, number] += 1
        changed = (model.tokens(body, moved, sample) - before).abs().amax((0, 2)) > 0
        assert changed.nonzero().flatten().tolist() == [4 + int(body.observed_joint[number])]


def test_a_motors_noisy_chunk_enters_through_its_own_token_alone():
    model, body = awake(), chain()
    observation, sample, _ = inputs(body)
    before = model.tokens(body, observation, sample)
    for motor in range(body.motors):
        moved = sample.clone()
        moved[:, :, motor] += 1
        changed = (model.tokens(body, observation, moved) - before).abs().amax((0, 2)) > 0
        assert changed.nonzero().flatten().tolist() == [4 + 5 + motor]


def test_without_bodies_the_policy_is_told_nothing_of_them():
    config = replace(SMALL, bodies=False)
    model, told, body = awake(config), awake(), chain()
    other = replace(body, features=body.features + 1, distances=body.distances.flip(0))
    assert model.distance_bias is None
    assert torch.equal(model(body, *inputs(body))[0], model(other, *inputs(body))[0])
    assert not torch.allclose(told(body, *inputs(body))[0], told(other, *inputs(body))[0])
    assert (body.tokens(True), body.tokens(False)) == (12, 8)


def test_one_set_of_weights_moves_bodies_of_other_shapes():
    model = awake()
    for body, motors in ((chain(), 3), (star(), 2)):
        chunk, looped = model(body, *inputs(body))
        assert chunk.shape == (3, SMALL.horizon, motors)
        assert looped.tokens.shape == (3, body.tokens(True), SMALL.width)


def test_two_bodies_alike_are_told_apart_by_their_index():
    model, body = awake(), chain(index=0)
    twin = replace(body, index=1)
    assert not torch.allclose(model(body, *inputs(body))[0], model(twin, *inputs(body))[0])


def test_every_loop_is_an_exit_of_the_same_model():
    model, body = awake(), chain()
    one, two = (model(body, *inputs(body), loops=loops)[0] for loops in (1, 2))
    assert torch.equal(model(body, *inputs(body))[0], two)
    assert not torch.allclose(one, two)
    with pytest.raises(ConfigError, match="loops=3"):
        model(body, *inputs(body), loops=3)


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (MorphologyConfig(), 1_582_776),
        (MorphologyConfig(loops=LoopConfig(loops=1)), 1_580_463),
        (MorphologyConfig(blocks=12, loops=LoopConfig(loops=1)), 5_127_480),
        (MorphologyConfig(bodies=False), 1_543_700),
    ],
)
def test_the_systems_of_experiment_22_have_these_parameters(
    config: MorphologyConfig, parameters: int
):
    with torch.device("meta"):
        model = MorphologyDiT(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"width": 30, "heads": 4}, "width=30 is not a multiple of morphology.heads=4"),
        ({"horizon": 0}, "horizon=0 must be at least 1"),
    ],
)
def test_a_size_that_cannot_be_is_refused(wrong: dict[str, Any], reason: str):
    with pytest.raises(ConfigError, match=reason):
        MorphologyConfig(**wrong)


def test_a_batch_of_another_body_is_refused_by_name():
    model = awake()
    with pytest.raises(ConfigError, match="'chain' has observed numbers: 6; here it is 10"):
        model(chain(), *inputs(star()))
    with pytest.raises(ConfigError, match="'star' has its index: 5; here it is 1"):
        model(replace(star(), index=5), *inputs(star()))
