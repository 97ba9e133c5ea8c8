"""The measured loops against the passes that the models make themselves."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.policy.policies import small_spec
from torch import Tensor

from loopdit.errors import ConfigError
from loopdit.policy.block import AdaLNBlock
from loopdit.policy.fixed_point.adapters import (
    observation_loops,
    random_policy,
    seeded,
    stack_loops,
)
from loopdit.policy.looped_dit_config import LoopedDiTConfig
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.policy.loops.config import LoopConfig
from loopdit.policy.loops.looped_stack import LoopedStack

CONFIG = LoopedDiTConfig(width=32, blocks=2, max_loops=3, action_horizon=4, actions_per_token=2)


def trained(**changes: Any) -> LoopedPolicy:
    """Every weight moved: fresh loop embeddings are zero, and would hide which one is used."""
    torch.manual_seed(0)
    policy = LoopedPolicy(small_spec(cameras=2), replace(CONFIG, **changes))
    for parameter in policy.model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    policy.normalizer.proprio_mean.fill_(0.5)
    return policy.eval().requires_grad_(False)


def observation(policy: LoopedPolicy, batch: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    frames = {
        camera.name: torch.randint(0, 256, (batch, *camera.shape), generator=generator)
        for camera in policy.spec.cameras
    }
    return {**frames, "proprio": torch.randn(batch, 3, generator=generator)}


@pytest.mark.parametrize("injection", [False, True])
def test_the_loops_are_those_of_the_policys_own_pass(injection: bool):
    """Its first block makes the keys that the pass gives away of what a loop begins with."""
    policy = trained(injection=injection)
    seen = observation(policy)
    step, state = observation_loops(policy, seen)
    context = policy.encode(seen, CONFIG.max_loops)
    block = policy.model.blocks[0]
    clean = policy.model.condition(torch.ones(1))
    start = state
    for loop in range(CONFIG.max_loops):
        mixed = state
        if policy.model.injection is not None:
            mixed = policy.model.injection(state, start)
        _, (keys, values) = block(mixed + policy.model.loop_embedding[loop], clean)
        torch.testing.assert_close(keys, context.keys[loop * CONFIG.blocks])
        torch.testing.assert_close(values, context.values[loop * CONFIG.blocks])
        state = step(state, loop)


def test_loops_beyond_the_trained_ones_repeat_the_last():
    policy = trained()
    step, start = observation_loops(policy, observation(policy))
    assert torch.equal(step(start, 9), step(start, 2))
    assert not torch.allclose(step(start, 1), step(start, 2), atol=1e-3)


def test_a_policy_whose_observation_tokens_see_the_noise_is_refused():
    policy = trained(topology="dense")
    with pytest.raises(ConfigError, match=r"topology=dense.*one_way"):
        observation_loops(policy, observation(policy))


def test_a_random_policy_is_its_seeds_and_sees_what_the_trained_one_sees():
    policy = trained()
    before = torch.get_rng_state()
    one, same, other = (random_policy(policy, seed) for seed in (4, 4, 5))
    assert torch.equal(torch.get_rng_state(), before)
    assert one.normalizer.proprio_mean.tolist() == [0.5] * 3
    seen = observation(policy)
    starts = [observation_loops(p, seen).start for p in (policy, one, same, other)]
    assert torch.equal(starts[1], starts[2])
    assert not torch.allclose(starts[1], starts[3], atol=1e-3)
    assert not torch.allclose(starts[0], starts[1], atol=1e-3)


@pytest.mark.parametrize("injection", [False, True])
@pytest.mark.parametrize("scope", ["block", "stack"])
def test_the_loops_of_a_stack_are_those_of_its_own_pass(scope: str, injection: bool):
    config = LoopConfig(loops=3, scope=scope, init="paper", sharpest=2.0, injection=injection)
    stack = seeded(lambda: LoopedStack(lambda: AdaLNBlock(32), 2, 32, config), 0)
    generator = torch.Generator().manual_seed(1)
    for parameter in stack.requires_grad_(False).parameters():
        parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    tokens, condition = torch.randn(2, 2, 5, 32, generator=generator)
    condition = condition[:, :1]
    bias = torch.randn(2, 1, 5, 5, generator=generator)
    own = stack(tokens, condition, bias=bias, keep_states=True).states
    assert own is not None
    mine = [tokens]
    for unit in range(len(stack.units)):
        step, state = stack_loops(stack, tokens, condition, bias, unit=unit)
        torch.testing.assert_close(state, mine[-1])
        mine += [state := step(state, loop) for loop in range(config.loops)]
        assert torch.equal(step(state, 7), step(state, config.loops - 1))
    assert len(mine) == len(own)
    for one, other in zip(mine, own, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
