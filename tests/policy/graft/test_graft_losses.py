from typing import Any

import pytest
import torch
from tests.policy.graft.graft_policies import batch, policy_of, small_policy

from loopdit.policy.graft.graft_policy import GraftPolicy
from loopdit.policy.graft.losses import LossConfig, draw, graft_losses, planned_depths, velocity
from loopdit.policy.objectives.depth import DepthPlan


def _draws(policy: GraftPolicy):
    return draw(policy, 2, torch.Generator().manual_seed(0))


def test_the_frozen_graft_of_one_loop_has_the_ungrafted_models_loss():
    policy = small_policy(loops=1)
    latents, task, actions, valid = batch(policy)
    draws = _draws(policy)
    config = LossConfig(actions=0.0, video=1.0)
    found = graft_losses(policy, latents, task, actions, valid, draws, config)
    text = policy.text(task)
    transformer = policy.graft.unloop()
    level: Any = draws.level  # its annotation says IntTensor
    with torch.no_grad():  # diffusers' own objects alone, from here on
        noisy = policy.scheduler.add_noise(latents, draws.video, level)
        (said,) = transformer(noisy, text, draws.level, return_dict=False)
        target = policy.scheduler.get_velocity(latents, draws.video, level)
        plain = torch.nn.functional.mse_loss(said, target)
    torch.testing.assert_close(found.objective, plain, rtol=1e-6, atol=0.0)


def test_the_velocity_and_the_noisy_latents_give_the_latents_back():
    policy = small_policy()
    latents, *_ = batch(policy)
    draws = _draws(policy)
    noisy = policy.noised(latents, draws.video, draws.level)
    kept = policy.scheduler.alphas_cumprod[draws.level].view(-1, 1, 1, 1, 1)
    found = kept.sqrt() * noisy - (1 - kept).sqrt() * velocity(
        policy, latents, draws.video, draws.level
    )
    torch.testing.assert_close(found.float(), latents, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("plan", "depths"),
    [
        (DepthPlan(3), [1, 2, 3]),
        (DepthPlan(3, 1), [1, 3]),
        (DepthPlan(3, 3), [3]),
        (DepthPlan(2, 2), [2]),
    ],
)
def test_a_step_runs_the_depths_that_are_planned(plan: DepthPlan, depths: list[int]):
    policy = small_policy(loops=3)
    assert planned_depths(policy, plan) == depths
    found = graft_losses(policy, *batch(policy), _draws(policy), LossConfig(), plan)
    assert list(found.depths) == depths
    assert len(found.error) == len(found.video) == len(depths)


def test_a_shallower_depth_is_taught_by_the_deepest():
    policy = small_policy(loops=2)
    with torch.no_grad():  # the loops say different things
        for value in policy.graft.loop_parameters():
            value.add_(0.3)
    inputs, draws = batch(policy), _draws(policy)

    def gradient(distill: float) -> torch.Tensor:
        policy.zero_grad()
        plan = DepthPlan(2, distill=distill)
        graft_losses(policy, *inputs, draws, LossConfig(video=0.0), plan).objective.backward()
        gradient = policy.graft.loop_parameters()[0].grad
        assert gradient is not None
        return gradient[0].clone()

    assert not torch.allclose(gradient(0.0), gradient(0.9), rtol=1e-3)


def test_actions_can_be_learned_at_the_level_that_is_served_alone():
    policy = small_policy(loops=1)
    inputs, draws = batch(policy), _draws(policy)
    other = draws._replace(level=(draws.level + 500) % 1000)

    def error(config: LossConfig, these: object) -> torch.Tensor:
        return graft_losses(policy, *inputs, these, config).error  # pyright: ignore[reportArgumentType]

    served = LossConfig(video=0.0, levels="served")
    assert torch.equal(error(served, draws), error(served, other))
    everywhere = LossConfig(video=0.0)
    assert not torch.equal(error(everywhere, draws), error(everywhere, other))


def test_a_looped_decoder_has_a_loss_for_each_of_its_loops():
    policy = policy_of(graft_looped="expert", loops=3)
    found = graft_losses(policy, *batch(policy), _draws(policy), LossConfig())
    assert list(found.depths) == [1, 2, 3]
    assert len(found.video) == 1


def test_a_depth_that_was_not_run_counts_as_the_next_deeper_one():
    policy = small_policy(loops=3)
    found = graft_losses(policy, *batch(policy), _draws(policy), LossConfig(), DepthPlan(3, 1))
    assert torch.equal(found.error_of(range(1, 4)), found.error[[0, 1, 1]])
