from dataclasses import replace

import pytest
import torch
from tests.policy.morphology.bodies import chain, star

from loopdit.errors import ConfigError
from loopdit.policy.loops.config import LoopConfig
from loopdit.policy.morphology.morphology_dit import MorphologyConfig
from loopdit.policy.morphology.morphology_policy import MorphologyPolicy
from loopdit.policy.objectives.objective import ObjectiveConfig

SMALL = MorphologyConfig(
    width=32, heads=2, blocks=1, horizon=4, robots=2, loops=LoopConfig(loops=2)
)


def policy(kind: str = "flow") -> MorphologyPolicy:
    torch.manual_seed(0)
    return MorphologyPolicy(SMALL, ObjectiveConfig(kind=kind))


def test_observations_are_standardised_and_actions_scaled_back():
    body = chain()
    raw = body.mean + 2 * body.spread
    torch.testing.assert_close(body.observation(raw[None]), torch.full((1, 10), 2.0))
    actions = 0.9 * body.reach.expand(1, 4, 3)
    torch.testing.assert_close(body.actions(body.chunk(actions)), actions)
    usual = body.action_mean + 2 * body.action_spread
    torch.testing.assert_close(body.chunk(usual.expand(1, 4, 3)), torch.full((1, 4, 3), 2.0))
    torch.testing.assert_close(
        body.actions(torch.full((1, 4, 3), 99.0)), body.reach.expand(1, 4, 3)
    )


def test_a_number_that_never_varied_does_not_blow_up():
    body = chain()
    still = replace(body, spread=torch.zeros_like(body.spread))
    assert still.observation(body.mean[None] + 1).abs().max() <= 10


def test_actions_after_the_end_of_an_episode_do_not_count():
    # By regression: another objective also shows them, as noise.
    body, model = chain(), policy("regression")
    observation, actions = torch.randn(5, 10), torch.rand(5, 4, 3)
    valid = torch.ones(5, 4)
    valid[:, 2:] = 0
    other = torch.cat([actions[:, :2], actions[:, 2:] + 1], dim=1)

    def loss(chunk: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        generator = torch.Generator().manual_seed(1)
        return model.loss(body, observation, chunk, valid, generator)

    assert torch.equal(loss(actions, valid), loss(other, valid))
    assert loss(other, torch.ones(5, 4)) > loss(actions, torch.ones(5, 4))


@pytest.mark.system
@pytest.mark.parametrize("kind", ["flow", "regression"])
def test_one_policy_learns_two_bodies_at_once(kind: str):
    model = policy(kind)
    generator = torch.Generator().manual_seed(0)
    robots = [chain(), star()]
    # The expert: each motor pulls its joint's angle back, by what the observation says of it.
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)

    def batch(number: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        body = robots[number]
        seen = torch.randn(size, len(body.mean), generator=generator)
        wanted = body.action_mean - body.action_spread * seen[:, body.motor_joint].clamp(-1, 1)
        return body.mean + seen * body.spread, wanted[:, None].expand(-1, 4, -1)

    for _ in range(200):
        optimizer.zero_grad()
        for number, body in enumerate(robots):
            raw, actions = batch(number, 32)
            model.loss(body, raw, actions, torch.ones(32, 4), generator).backward()
        optimizer.step()
    for number, body in enumerate(robots):
        raw, actions = batch(number, 256)
        given = model.act(body, raw, torch.zeros(256, 4, body.motors))
        error = (body.chunk(given) - body.chunk(actions)).square().mean()
        assert error < 0.25 * body.chunk(actions).square().mean()


def test_a_body_whose_arrays_disagree_is_refused_by_name():
    body = star()
    with pytest.raises(ConfigError, match=r"'star' has 3 bodies.*motor_joint of shape \(2,\)"):
        replace(body, motor_joint=body.motor_joint + 2)
