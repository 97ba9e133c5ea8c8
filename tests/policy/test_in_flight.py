"""Actions in flight: what a training window tells of them, and what a policy makes of it."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.policy.policies import SMALL, small_spec, small_store

from loopdit.datasets.spec import COMMITTED, FROM_COMMITTED, FROM_OBSERVATION, TensorSpec
from loopdit.datasets.windows import WindowSampler
from loopdit.errors import ConfigError
from loopdit.policy.looped_dit_config import LoopedDiTConfig
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.policy.objectives.objective import ObjectiveConfig
from loopdit.policy.training.in_flight import extra_horizon, learned, with_committed
from loopdit.policy.training.window_tensors import WindowReader

PREFIX = replace(SMALL, in_flight=3)  # of four actions, two to a token
SPEC = small_spec()


@pytest.fixture
def policy() -> LoopedPolicy:
    torch.manual_seed(0)
    made = LoopedPolicy(SPEC, PREFIX).eval()
    with torch.no_grad():  # fresh modulations are zero, which would hide the time
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made.requires_grad_(False)


def observed(count: int, committed: torch.Tensor) -> dict[str, torch.Tensor]:
    """The same for each row but for the first `count` actions of `committed` (3, 2)."""
    generator = torch.Generator().manual_seed(1)
    there = (torch.arange(3) < count).float()[:, None]
    return {
        "images.camera0": torch.randint(
            0, 256, (1, 16, 16, 3), dtype=torch.uint8, generator=generator
        ),
        "proprio": torch.randn(1, 3, generator=generator),
        COMMITTED: torch.cat([there * committed, there], dim=-1)[None],
    }


COMMITTED_ACTIONS = torch.tensor([[0.5, 0.25], [-0.5, 0.5], [0.125, 0.75]])


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_a_chunk_begins_with_the_actions_that_are_committed(policy: LoopedPolicy, count: int):
    chunk = policy.act(observed(count, COMMITTED_ACTIONS), torch.zeros(1, 4, 2), loops=2)
    torch.testing.assert_close(chunk[0, :count], COMMITTED_ACTIONS[:count])


def test_what_is_committed_decides_how_the_chunk_goes_on(policy: LoopedPolicy):
    noise = torch.zeros(1, 4, 2)
    one = policy.act(observed(2, COMMITTED_ACTIONS), noise, loops=2)
    other = policy.act(observed(2, -COMMITTED_ACTIONS.abs()), noise, loops=2)
    assert not torch.allclose(one[0, 2:], other[0, 2:])


def test_what_lies_behind_the_committed_actions_has_no_influence(policy: LoopedPolicy):
    given = observed(1, COMMITTED_ACTIONS)
    noisy = {**given, COMMITTED: given[COMMITTED].clone()}
    noisy[COMMITTED][:, 1:, :-1] = 7.0  # said to be absent
    noise = torch.zeros(1, 4, 2)
    torch.testing.assert_close(policy.act(given, noise, 2), policy.act(noisy, noise, 2))


def test_committed_actions_are_at_the_end_of_time_and_the_others_at_the_samples(
    policy: LoopedPolicy,
):
    """Written out: a token of one committed and one noised action is half way between."""
    model, times = policy.model, torch.tensor([0.25])
    inputs = policy.normalized(observed(1, COMMITTED_ACTIONS))
    sample = torch.randn(1, 4, 2, generator=torch.Generator().manual_seed(2))
    shown, condition = model._with_committed(sample, times, inputs.committed)  # pyright: ignore[reportPrivateUsage] - what the blocks are given
    noisy, clean = (model.condition(t)[0, 0] for t in (times, torch.ones(1)))
    torch.testing.assert_close(condition[0, 0], (noisy + clean) / 2)
    torch.testing.assert_close(condition[0, 1], noisy)
    torch.testing.assert_close(shown[0, 0], policy.normalizer.chunk(COMMITTED_ACTIONS)[0])
    torch.testing.assert_close(shown[0, 1:], sample[0, 1:])


def test_committed_actions_are_not_learned_from(policy: LoopedPolicy):
    draws = policy.draw(1, torch.Generator().manual_seed(0))
    valid = torch.ones(1, 4, dtype=torch.bool)
    given = observed(2, COMMITTED_ACTIONS)
    actions = torch.rand(1, 4, 2)
    other = actions.clone()
    other[:, :2] += 5
    one, same = (policy.losses(given, a, valid, draws).error for a in (actions, other))
    torch.testing.assert_close(one, same)
    other[:, 2] += 5
    assert not torch.allclose(one, policy.losses(given, other, valid, draws).error)


def slow_count(most: int, chance: float) -> int:
    """The first d such that it and fewer have more than this chance, each as 1 / (d + 1)."""
    total = sum(Fraction(1, d + 1) for d in range(most + 1))
    return next(
        d for d in range(most + 1) if chance < sum(Fraction(1, i + 1) for i in range(d + 1)) / total
    )


def slow_windows(
    config: LoopedDiTConfig, executed: np.ndarray, actions: np.ndarray, chances: list[float]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    told: list[np.ndarray] = []
    chunks: list[np.ndarray] = []
    for row, chance in enumerate(chances):
        count = slow_count(config.in_flight, chance)
        table = np.zeros((config.in_flight, executed.shape[-1] + 1), np.float32)
        for i in range(count):
            table[i] = [*executed[row, i], 1]
        told.append(table)
        first = count if config.told == "rolled" else 0
        chunks.append(actions[row, first : first + config.action_horizon])
    return told, chunks


@pytest.mark.parametrize("told", ["prefix", "rolled"])
def test_a_window_tells_of_as_many_executed_actions_as_chance_says(told: str):
    config = replace(PREFIX, told=told)
    rng = np.random.default_rng(0)
    horizon = config.action_horizon + extra_horizon(config)
    executed = rng.normal(size=(4, 3, 2)).astype(np.float32)
    actions = rng.normal(size=(4, horizon, 2)).astype(np.float32)
    valid = torch.arange(horizon).expand(4, horizon) < 5
    chances = [0.0, 0.5, 0.75, 0.99]  # none, 1, 2, 3
    observation, chunk, inside = with_committed(
        config,
        {},
        torch.from_numpy(actions),
        valid,
        torch.from_numpy(executed),
        torch.tensor(chances),
    )
    tables, chunks = slow_windows(config, executed, actions, chances)
    np.testing.assert_array_equal(observation[COMMITTED].numpy(), np.stack(tables))
    np.testing.assert_array_equal(chunk.numpy(), np.stack(chunks))
    ahead = [0, 1, 2, 3] if told == "rolled" else [0, 0, 0, 0]
    assert inside.sum(1).tolist() == [min(4, 5 - d) for d in ahead]


def test_the_spec_says_where_a_chunk_begins():
    spec = small_spec()
    assert LoopedPolicy(spec, SMALL).spec == spec
    prefix = LoopedPolicy(spec, PREFIX).spec
    assert (prefix.max_committed, prefix.chunk_from) == (3, FROM_OBSERVATION)
    with pytest.raises(ConfigError):  # these two numbers are no pose that can be rolled forward
        LoopedPolicy(spec, replace(PREFIX, told="rolled"))
    assert FROM_COMMITTED != FROM_OBSERVATION


def test_short_delays_are_met_more_often_each_as_one_over_itself_and_one():
    config = replace(SMALL, action_horizon=8, in_flight=6)
    count = 10_000  # chances in the middles of equal shares of [0, 1)
    chances = (torch.arange(count) + 0.5) / count
    executed = torch.zeros(count, 6, 2)
    valid = torch.ones(count, 8, dtype=torch.bool)
    observation, _, _ = with_committed(
        config, {}, torch.zeros(count, 8, 2), valid, executed, chances
    )
    told = observation[COMMITTED][..., -1].sum(1).long()
    found = torch.bincount(told, minlength=7) / count
    expected = 1 / torch.arange(1.0, 8.0)
    torch.testing.assert_close(found, expected / expected.sum(), atol=1.5 / count, rtol=0)


def test_windows_of_a_store_carry_what_was_executed(tmp_path: Path):
    store = small_store(tmp_path / "store")
    sampler = WindowSampler(store, 4, 8, seed=0, in_flight=3)
    policy = LoopedPolicy(store.spec, PREFIX)
    draws = policy.draw(8, torch.Generator().manual_seed(0))
    reader = WindowReader(policy.config, sampler.instructions, torch.device("cpu"))
    batch = sampler.batch(0)
    window = reader.tensors(batch, draws, 0, 8)
    assert draws.committed is not None
    assert batch.executed is not None
    count = torch.tensor([slow_count(3, chance) for chance in draws.committed.tolist()])
    told = window.observation[COMMITTED]
    torch.testing.assert_close(told[..., -1].sum(1), count.float())
    expected = torch.from_numpy(batch.executed) * told[..., -1:]
    torch.testing.assert_close(told[..., :-1], expected)


def test_a_dense_policy_is_told_of_them_too():
    torch.manual_seed(0)
    dense = LoopedPolicy(SPEC, replace(PREFIX, topology="dense")).eval()
    chunk = dense.act(observed(2, COMMITTED_ACTIONS), torch.zeros(1, 4, 2), loops=2)
    torch.testing.assert_close(chunk[0, :2], COMMITTED_ACTIONS[:2])


def test_windows_of_which_nothing_is_left_to_learn_cost_nothing(policy: LoopedPolicy):
    draws = policy.draw(1, torch.Generator().manual_seed(0))
    last = torch.tensor([[True, False, False, False]])  # the last step of an episode
    losses = policy.losses(observed(2, COMMITTED_ACTIONS), torch.zeros(1, 4, 2), last, draws)
    assert not losses.objective.any()
    assert not losses.error.any()


@pytest.mark.parametrize("told", ["prefix", "rolled"])
def test_a_window_counts_by_the_actions_that_are_learned_from_it(told: str):
    config = replace(PREFIX, told=told)
    horizon = config.action_horizon + extra_horizon(config)
    valid = np.arange(horizon) < np.array([[horizon], [5], [3], [1]])
    chances = torch.tensor([0.0, 0.5, 0.75, 0.99])
    executed = torch.zeros(4, 3, 2)
    observation, _, inside = with_committed(
        config, {}, torch.zeros(4, horizon, 2), torch.from_numpy(valid), executed, chances
    )
    if told == "prefix":
        there = observation[COMMITTED][..., -1] > 0
        inside = inside & ~torch.nn.functional.pad(there, (0, 1))
    assert learned(config, valid, chances).tolist() == inside.sum(1).tolist()
    assert learned(SMALL, valid, None).tolist() == valid.sum(1).tolist()


def test_rolling_by_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"policy\.in_flight=6"):
        replace(SMALL, told="rolled")


@pytest.mark.parametrize("opening", [0.0, 1.0])
def test_a_gripper_that_is_not_sure_holds_what_is_committed(opening: float):
    """What the model says of committed actions is not learned, and must decide nothing."""
    labels, units = ("x", "gripper"), ("m", "1")
    action = TensorSpec("action", (2,), "float32", labels, units, low=(-1, 0), high=(1, 1))
    gripper = ObjectiveConfig(gripper="bce", gripper_settled=0.95)
    torch.manual_seed(0)
    policy = LoopedPolicy(replace(SPEC, action=action), replace(PREFIX, objective=gripper)).eval()
    committed = torch.tensor([[0.5, opening]] * 3)  # fresh logits are near 0: not sure
    given = observed(2, committed)
    found = policy.act(given, torch.zeros(1, 4, 2), loops=2)[0, :, 1]
    assert found.tolist() == [opening] * 4
    context, sample = policy.encode(given, 2), torch.zeros(1, 4, 2)
    for t in (0.0, 0.5):  # as graphs do it
        sample = policy.denoise_step(sample, torch.tensor([t]), torch.tensor([0.5]), context)
    assert policy.to_actions(sample)[0, :, 1].tolist() == [opening] * 4
