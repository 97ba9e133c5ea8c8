from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from loopdit.datasets.spec import PolicySpec, TensorSpec
from loopdit.errors import ConfigError
from loopdit.policy.objectives.depth import exit_objectives
from loopdit.policy.objectives.gripper import (
    GripperObjective,
    gripper_ends,
    gripper_mask,
    opened,
    with_gripper,
)
from loopdit.policy.objectives.objective import ObjectiveConfig
from loopdit.policy.objectives.registry import make_objective

LABELS = ("x", "left_gripper", "y", "right_gripper")
CONFIGS = [
    *(ObjectiveConfig(kind=k) for k in ("flow", "ddpm_eps", "ddpm_x0", "ddpm_v", "regression")),
    ObjectiveConfig(sampler="heun"),
    ObjectiveConfig(kind="ddpm_x0", sampler="ddpm"),
]
MASK = torch.tensor([False, True, False, True])
ENDS = torch.tensor([[0.0, -0.5, 0.0, 2.0], [0.0, 1.5, 0.0, -2.0]])  # the others' coincide


@pytest.fixture(params=CONFIGS, ids=lambda config: f"{config.kind}-{config.chosen_sampler}")
def objective(request: pytest.FixtureRequest) -> GripperObjective:
    return with_gripper(make_objective(request.param), MASK, ENDS)


def spec(low: tuple[float, ...] = (), high: tuple[float, ...] = ()) -> PolicySpec:
    proprio = TensorSpec("proprio", (3,), "float32")
    action = TensorSpec("action", (4,), "float32", LABELS, low=low, high=high)
    return PolicySpec((proprio,), action, "base", 0.05)


def drawn() -> tuple[Tensor, Tensor, Tensor]:
    """Chunks with grippers at their ends, noise, and noise for 5 steps."""
    generator = torch.Generator().manual_seed(0)
    chunk, noise = torch.randn(2, 3, 8, 4, generator=generator)
    which = torch.randint(2, chunk.shape, generator=generator).bool()
    chunk = torch.where(MASK, torch.where(which, ENDS[1], ENDS[0]), chunk)
    return chunk, noise, torch.randn(5, 3, 8, 4, generator=generator)


def test_grippers_are_found_by_their_labels():
    assert torch.equal(gripper_mask(spec(), ["gripper"]), MASK)
    assert gripper_mask(spec(), ["left"]).tolist() == [False, True, False, False]
    with pytest.raises(ConfigError, match=r"no action is called by one of hand\. The actions are"):
        gripper_mask(spec(), ["hand"])
    without = replace(spec(), action=replace(spec().action, labels=()))
    with pytest.raises(ConfigError, match="The actions are: without labels"):
        gripper_mask(without, ["gripper"])


def test_closed_and_open_are_the_limits_and_0_and_1_without():
    assert gripper_ends(spec()).tolist() == [[0.0] * 4, [1.0] * 4]
    limited = gripper_ends(spec((-1, -2, -3, -np.inf), (1, 2, 3, 4)))
    assert limited.tolist() == [[-1, -2, -3, 0], [1, 2, 3, 1]]


def test_the_loss_is_cross_entropy_in_the_gripper_and_the_inner_one_elsewhere(
    objective: GripperObjective,
):
    chunk, noise, _ = drawn()
    chunk[0, 0, 1] = 0.0  # a quarter open
    level = objective.levels(3, torch.Generator().manual_seed(1))
    target = objective.target(chunk, noise, level)
    assert target[0, 0, 1] == 0.25
    output = torch.randn(2, 3, 8, 4, generator=torch.Generator().manual_seed(2))
    loss = objective.loss(output, target)

    inner = objective.inner
    plain = (output - inner.target(chunk, noise, level)).square()
    torch.testing.assert_close(loss[..., ~MASK], plain[..., ~MASK])
    chance = 1 / (1 + torch.exp(-output[..., MASK]))
    share = target[..., MASK]
    entropy = -(share * chance.log() + (1 - share) * (1 - chance).log())
    torch.testing.assert_close(loss[..., MASK], entropy)


def test_a_shallow_exit_is_taught_the_deepest_ones_probability(objective: GripperObjective):
    chunk, noise, _ = drawn()
    target = objective.target(chunk, noise, objective.levels(3, torch.Generator().manual_seed(1)))
    deepest = torch.randn(chunk.shape, generator=torch.Generator().manual_seed(2))
    weight = torch.ones(3, 8)

    def taught(logit: float) -> float:
        shallow = torch.where(MASK, torch.full_like(deepest, logit), deepest)
        exits = torch.stack([shallow, deepest])
        both = exit_objectives(
            exits, target, weight, 1 - 1e-6, None, objective.loss, objective.as_target
        )
        return float(both[0])

    # The best constant logit is that of the mean probability, whatever the demonstration is.
    best = float(torch.logit(deepest[..., MASK].sigmoid().mean()))
    assert taught(best) < min(taught(best - 0.1), taught(best + 0.1))


def test_the_model_never_sees_the_grippers_noise(objective: GripperObjective):
    chunk, noise, fresh = drawn()
    seen: list[Tensor] = []

    def model(sample: Tensor, level: Tensor) -> Tensor:
        seen.append(sample)
        return torch.sin(sample.sum(-1, keepdim=True) + torch.arange(4))

    reached = objective.sample(model, noise, 5, fresh)
    other = torch.where(MASK, 100.0, noise)
    assert torch.equal(objective.sample(model, other, 5, fresh), reached)
    assert all(not sample[..., MASK].any() for sample in seen)
    level = torch.full((3,), 0.9)
    assert not objective.noised(chunk, noise, level)[..., MASK].any()


def test_a_sampled_gripper_is_open_or_closed_by_the_last_logits(objective: GripperObjective):
    chunk, noise, fresh = drawn()
    logits = torch.where(chunk == ENDS[1], 0.7, -0.7)

    def model(sample: Tensor, level: Tensor) -> Tensor:
        late = level >= (0.8 if objective.predictions(5) > 1 else 0.0)
        right = torch.where(late[:, None, None], logits, -logits)
        return torch.where(MASK, right, sample)

    reached = objective.sample(model, noise, 5, fresh)
    assert torch.equal(reached[..., MASK], chunk[..., MASK])
    implied = objective.chunk(noise, logits, torch.full((3,), 0.5))
    assert torch.equal(implied[..., MASK], chunk[..., MASK])


def test_one_step_after_another_samples_the_same_chunk(objective: GripperObjective):
    _, noise, fresh = drawn()

    def model(sample: Tensor, level: Tensor) -> Tensor:
        return torch.sin(sample.cumsum(-1) + torch.arange(4)) + level[:, None, None]

    sample, dt = noise, torch.full((3,), 0.2)
    for i in range(5):
        sample = objective.step(model, sample, torch.full((3,), i / 5), dt, fresh[i])
    torch.testing.assert_close(sample, objective.sample(model, noise, 5, fresh))


def test_known_grippers_are_shown_kept_and_held_on_to():
    objective = with_gripper(make_objective(ObjectiveConfig()), MASK, ENDS, settled=0.95)
    chunk, noise, _ = drawn()
    known = (torch.arange(8) < 3).expand(3, 8)
    start = torch.where(known[..., None], chunk, noise)

    def undecided(sample: Tensor, level: Tensor) -> Tensor:
        assert torch.equal(sample[:, :3], chunk[:, :3])
        assert not sample[:, 3:, MASK].any()
        return torch.zeros_like(sample)

    reached = objective.sample(undecided, start, 4, known=known)
    assert torch.equal(reached[:, :3], chunk[:, :3])
    torch.testing.assert_close(
        reached[:, 3:, MASK], chunk[:, 2:3, MASK].expand(-1, 5, -1), rtol=0, atol=1e-6
    )


def test_gradients_are_finite_where_the_ends_of_other_actions_coincide():
    objective = with_gripper(make_objective(ObjectiveConfig()), MASK, ENDS)
    chunk, noise, _ = drawn()
    output = torch.randn(3, 8, 4).requires_grad_()
    objective.loss(output, objective.target(chunk, noise, torch.zeros(3))).mean().backward()
    assert output.grad is not None
    assert output.grad.isfinite().all()


@given(
    chances=st.lists(
        st.sampled_from([0.0, 0.04, 0.06, 0.3, 0.5, 0.7, 0.94, 0.96, 1.0]), min_size=1
    ),
    settled=st.sampled_from([0.5, 0.95]),
)
def test_a_gripper_goes_on_as_before_until_the_chance_is_settled(
    chances: list[float], settled: float
):
    held = 1.0 if chances[0] >= 0.5 else 0.0
    expected: list[float] = []
    for chance in chances:
        if chance > settled:
            held = 1.0
        elif chance < 1 - settled:
            held = 0.0
        expected.append(held)
    done = opened(torch.tensor(chances, dtype=torch.float64)[:, None], settled)
    assert done[:, 0].tolist() == expected
