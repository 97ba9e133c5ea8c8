"""Adaptive depth against a slow loop over the fixed depths, one observation at a time."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.policy.policies import small_spec
from torch import Tensor

from loopdit.errors import ConfigError
from loopdit.policy.adaptive_depth import act_adaptively, loop_changes
from loopdit.policy.depth_calibration import loops_taken
from loopdit.policy.looped_dit_config import LoopedDiTConfig
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.policy.stopping_rule import CHUNK, MEASURES, STATE, StoppingRule

LOOPS, BATCH = 4, 6
Observation = dict[str, Tensor]


@pytest.fixture(scope="module")
def policy() -> LoopedPolicy:
    torch.manual_seed(0)
    config = LoopedDiTConfig(
        width=32, blocks=2, max_loops=LOOPS, action_horizon=4, actions_per_token=2
    )
    policy = LoopedPolicy(small_spec(), config).eval().requires_grad_(False)
    for parameter in policy.model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)  # fresh loops would all do the same
    return policy


@pytest.fixture(scope="module")
def observation() -> Observation:
    generator = torch.Generator().manual_seed(1)
    frames = torch.randint(0, 256, (BATCH, 16, 16, 3), generator=generator, dtype=torch.uint8)
    return {"images.camera0": frames, "proprio": torch.randn(BATCH, 3, generator=generator)}


@pytest.fixture(scope="module")
def noise() -> Tensor:
    return torch.randn(BATCH, 4, 2, generator=torch.Generator().manual_seed(2))


def slow_depth(
    policy: LoopedPolicy, observation: Observation, noise: Tensor, rule: StoppingRule, deepest: int
) -> int:
    """Of one observation: everything anew at each K, and the change between neighbours."""
    before = None
    for k in range(1, deepest + 1):
        context = policy.encode(observation, k)
        if rule.measure == CHUNK:
            # One denoising step from time 0 to 1 ends at what the model predicts.
            now = policy.model.predict(noise, torch.zeros(1), context)
            scale = now.numel()
        else:
            now = context.values[-len(policy.model.blocks) :]
            scale = 1.0 if before is None else float(before.square().sum())
        if before is not None and float((now - before).square().sum()) / scale < rule.threshold:
            return k
        before = now
    return deepest


@pytest.mark.parametrize("measure", MEASURES)
def test_it_stops_where_a_slow_loop_over_the_depths_does(
    policy: LoopedPolicy, observation: Observation, noise: Tensor, measure: str
):
    middle = float(loop_changes(policy, observation, noise, measure)[:, 0].median())
    depths: set[int] = set()
    for factor in (0.02, 0.3, 1.001, 3.0):
        rule = StoppingRule(factor * middle, measure)
        chunks = act_adaptively(policy, observation, noise, rule, steps=3)
        for row in range(BATCH):
            alone = {name: value[[row]] for name, value in observation.items()}
            k = slow_depth(policy, alone, noise[[row]], rule, LOOPS)
            assert int(chunks.loops[row]) == k
            fixed = policy.act(alone, noise[[row]], k, steps=3)
            torch.testing.assert_close(chunks.actions[[row]], fixed, atol=1e-5, rtol=0)
            depths.add(k)
    assert len(depths) > 1  # else this has shown nothing


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("deepest", [1, 3, LOOPS])
def test_threshold_zero_is_the_deepest_fixed_depth_to_the_bit(
    policy: LoopedPolicy, observation: Observation, noise: Tensor, measure: str, deepest: int
):
    rule = StoppingRule(0.0, measure)
    chunks = act_adaptively(policy, observation, noise, rule, deepest, steps=3)
    assert chunks.loops.tolist() == [deepest] * BATCH
    assert torch.equal(chunks.actions, policy.act(observation, noise, deepest, steps=3))


@pytest.mark.parametrize("measure", MEASURES)
def test_an_infinite_threshold_takes_the_two_loops_that_a_change_needs(
    policy: LoopedPolicy, observation: Observation, noise: Tensor, measure: str
):
    rule = StoppingRule(math.inf, measure)
    chunks = act_adaptively(policy, observation, noise, rule, steps=3)
    assert chunks.loops.tolist() == [2] * BATCH
    assert torch.equal(chunks.actions, policy.act(observation, noise, 2, steps=3))


@given(order=st.permutations(range(BATCH)), count=st.integers(1, BATCH))
def test_what_an_observation_takes_does_not_depend_on_the_others(
    policy: LoopedPolicy,
    observation: Observation,
    noise: Tensor,
    order: list[int],
    count: int,
):
    middle = float(loop_changes(policy, observation, noise)[:, 1].median())
    rule = StoppingRule(1.001 * middle)
    whole = act_adaptively(policy, observation, noise, rule, steps=2)
    rows = order[:count]
    some = {name: value[rows] for name, value in observation.items()}
    part = act_adaptively(policy, some, noise[rows], rule, steps=2)
    assert part.loops.tolist() == whole.loops[rows].tolist()
    torch.testing.assert_close(part.actions, whole.actions[rows], atol=1e-5, rtol=0)


@pytest.mark.parametrize("measure", MEASURES)
def test_the_loops_follow_from_the_changes(
    policy: LoopedPolicy, observation: Observation, noise: Tensor, measure: str
):
    changes = loop_changes(policy, observation, noise, measure)
    assert changes.shape == (BATCH, LOOPS - 1)
    for threshold in changes.flatten().tolist():
        taken = act_adaptively(
            policy, observation, noise, StoppingRule(threshold, measure), steps=1
        ).loops
        assert taken.tolist() == loops_taken(changes, threshold, policy.max_loops).tolist()


def test_a_rule_or_a_depth_that_cannot_be_is_refused(
    policy: LoopedPolicy, observation: Observation, noise: Tensor
):
    with pytest.raises(ConfigError, match=r"threshold=-1\.0 must be at least 0"):
        StoppingRule(-1.0)
    with pytest.raises(ConfigError, match="threshold=nan"):
        StoppingRule(math.nan)
    with pytest.raises(ConfigError, match="measure=size is unknown"):
        StoppingRule(0.0, "size")
    with pytest.raises(ConfigError, match="loops=5 was not trained"):
        act_adaptively(policy, observation, noise, StoppingRule(0.0, STATE), max_loops=5)


@pytest.mark.parametrize("history", [1, 2])
def test_what_a_missing_camera_would_show_decides_no_depth(history: int):
    torch.manual_seed(0)
    config = LoopedDiTConfig(
        width=32, max_loops=3, action_horizon=4, optional_cameras=True, history=history
    )
    policy = LoopedPolicy(small_spec(cameras=2), config).eval().requires_grad_(False)
    for parameter in policy.model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    shape = {t.name: (BATCH, *t.shape) for t in policy.spec.observations}
    given = {name: torch.zeros(of, dtype=torch.uint8) for name, of in shape.items()}
    given["proprio"] = torch.randn(shape["proprio"])
    given["available"] = torch.tensor([[True, False]] * BATCH)
    noise = torch.zeros(BATCH, 4, 2)
    before = loop_changes(policy, given, noise, STATE)
    # Its tokens are still made, of a black frame and the weights: change those alone.
    for parameter in policy.model.cameras[1].parameters():
        parameter.mul_(2).add_(0.3)
    torch.testing.assert_close(loop_changes(policy, given, noise, STATE), before)
    given["available"][:] = True
    assert not torch.allclose(loop_changes(policy, given, noise, STATE), before)
