"""A policy has the depths that it is trained for, and offers no other."""

import math
from pathlib import Path

import pytest
import torch
from tests.policy.policies import small_spec, small_store
from tests.policy.trainings import config, rows

from loopdit.errors import ConfigError
from loopdit.policy.adaptive_depth import act_adaptively, loop_changes
from loopdit.policy.checkpoint import load_checkpoint
from loopdit.policy.looped_dit_config import LoopedDiTConfig
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.policy.objectives.depth import DepthPlan
from loopdit.policy.stopping_rule import StoppingRule
from loopdit.policy.training.train import train


def sized(least: int, most: int) -> LoopedDiTConfig:
    return LoopedDiTConfig(
        width=32, min_loops=least, max_loops=most, action_horizon=4, actions_per_token=2
    )


def test_a_training_reports_and_keeps_the_depths_of_the_model(tmp_path: Path):
    small_store(tmp_path / "data")
    train(config(tmp_path, policy=sized(2, 3), validation=0.25, validate_every=12))
    assert load_checkpoint(tmp_path / "out").policy.depths == range(2, 4)
    last = rows(tmp_path / "out")[-1]
    assert list(last["loss"]) == ["2", "3"]
    assert list(last["validation"]["action_error"]) == ["2", "3"]


def test_one_depth_is_trained_as_if_there_were_no_exits_before_it(tmp_path: Path):
    # Its loss is that of the deepest exit of a model that has them all.
    spec = small_spec(cameras=0)
    torch.manual_seed(0)
    every, one = LoopedPolicy(spec, sized(1, 3)), LoopedPolicy(spec, sized(3, 3))
    one.load_state_dict(every.state_dict())
    draws = every.draw(5, torch.Generator().manual_seed(1))
    observation = {"proprio": torch.randn(5, 3, generator=torch.Generator().manual_seed(2))}
    chunk, valid = torch.randn(draws.noise.shape), torch.ones(5, 4, dtype=torch.bool)
    found, alone = (
        p.losses(observation, chunk, valid, draws, DepthPlan(3, distill=0.5)) for p in (every, one)
    )
    torch.testing.assert_close(alone.objective, found.objective[-1:])
    torch.testing.assert_close(alone.error, found.error[-1:])


def test_a_plan_says_what_shallow_exits_are_taught_and_how_far_gradient_goes():
    torch.manual_seed(0)
    policy = LoopedPolicy(small_spec(cameras=0), sized(1, 3))
    draws = policy.draw(5, torch.Generator().manual_seed(1))
    observation = {"proprio": torch.randn(5, 3, generator=torch.Generator().manual_seed(2))}
    chunk, valid = torch.randn(draws.noise.shape), torch.ones(5, 4, dtype=torch.bool)

    def objective(plan: DepthPlan) -> torch.Tensor:
        return policy.losses(observation, chunk, valid, draws, plan).objective

    alone, taught = objective(DepthPlan(3)), objective(DepthPlan(3, distill=0.5))
    torch.testing.assert_close(taught[-1], alone[-1])
    assert not torch.isclose(taught[:-1], alone[:-1]).any()
    (gradient,) = torch.autograd.grad(alone[-1], policy.model.loop_embedding)
    assert gradient.any(-1).tolist() == [True, True, True]
    cut = objective(DepthPlan(3, truncate=1))
    (gradient,) = torch.autograd.grad(cut[-1], policy.model.loop_embedding)
    assert gradient.any(-1).tolist() == [False, False, True]


def test_depths_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match=r"policy\.min_loops=3 is above policy\.max_loops=2"):
        sized(3, 2)
    with pytest.raises(ConfigError, match=r"policy\.min_loops=0 must be at least 1"):
        sized(0, 2)


@pytest.mark.parametrize(("least", "stop"), [(1, 2), (2, 2), (3, 3)])
def test_adaptive_depth_stops_at_no_depth_that_was_not_trained(least: int, stop: int):
    policy = LoopedPolicy(small_spec(cameras=0), sized(least, 4)).eval()
    observation, noise = {"proprio": torch.randn(5, 3)}, torch.randn(5, 4, 2)
    found = act_adaptively(policy, observation, noise, StoppingRule(math.inf))
    assert found.loops.tolist() == [stop] * 5
    assert loop_changes(policy, observation, noise).shape == (5, 4 - stop + 1)
    with pytest.raises(ConfigError, match=r"loops=5 was not trained: K = [123]\.\.4 was"):
        act_adaptively(policy, observation, noise, StoppingRule(0.0), max_loops=5)
