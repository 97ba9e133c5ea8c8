import pytest
import torch
from torch import Tensor

from loopdit.errors import ConfigError
from loopdit.policy.objectives.depth import (
    DepthConfig,
    exit_objectives,
    objective_losses,
    plan_depth,
)
from loopdit.policy.objectives.objective import ObjectiveConfig, noise_chunk
from loopdit.policy.objectives.registry import make_objective


def drawn(exits: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Exits (K, B, H, A) with gradients, the target, and what is valid."""
    generator = torch.Generator().manual_seed(0)
    predicted = torch.randn(exits, 3, 8, 5, generator=generator).requires_grad_()
    target = torch.randn(3, 8, 5, generator=generator)
    return predicted, target, torch.arange(8) < torch.tensor([8, 5, 1])[:, None]


def shipped(exits: list[Tensor], chunk: Tensor, valid: Tensor, distill: float) -> Tensor:
    """The objective that the shipped policy was trained with, as it was written in LoopedDiT."""
    mixed = torch.lerp(chunk, exits[-1].detach(), distill)
    targets = [mixed] * (len(exits) - 1) + [chunk]
    weight = valid[..., None].to(chunk.dtype)
    count = weight.sum() * chunk.shape[-1]
    difference = torch.stack(exits) - torch.stack(targets)
    return (weight * difference.square()).sum((1, 2, 3)) / count


@pytest.mark.parametrize("exits", [1, 4])
@pytest.mark.parametrize("distill", [0.0, 0.5, 0.9])
def test_all_exits_at_once_is_what_was_shipped_to_the_bit(exits: int, distill: float):
    predicted, target, valid = drawn(exits)
    found = exit_objectives(predicted, target, valid, distill)
    expected = shipped(list(predicted.unbind(0)), target, valid, distill)
    assert torch.equal(found, expected)
    gradients = [
        torch.autograd.grad(objective.mean(), predicted)[0] for objective in (found, expected)
    ]
    assert torch.equal(*gradients)

    level = torch.full((3,), 0.5)
    noise = torch.zeros_like(target)
    flow = make_objective(ObjectiveConfig())
    noised = noise_chunk(flow, target, noise, level)
    same = objective_losses(flow, predicted, noised, valid, distill)
    assert torch.equal(same.objective, expected)
    assert not same.error.requires_grad
    assert torch.equal(same.error, shipped(list(predicted.unbind(0)), target, valid, 0.0))


@pytest.mark.parametrize("only", [1, 2, 3, 4])
def test_one_exit_and_its_teacher_are_all_that_learns(only: int):
    predicted, target, valid = drawn()
    every = exit_objectives(predicted, target, valid, 0.5)
    found = exit_objectives(predicted, target, valid, 0.5, only)
    supervised = sorted({only - 1, 3})
    torch.testing.assert_close(found.mean(), every[supervised].mean())
    found.mean().backward()
    assert predicted.grad is not None
    moved = [k for k in range(4) if predicted.grad[k].any()]
    assert moved == supervised


def test_actions_count_by_their_weight():
    predicted, target, _ = drawn()
    weight = torch.rand(3, 8, generator=torch.Generator().manual_seed(1))
    error = exit_objectives(predicted, target, weight, 0.0)
    slow = [0.0] * 4
    for k in range(4):
        for b in range(3):
            for h in range(8):
                difference = predicted[k, b, h].detach() - target[b, h]
                slow[k] += float(weight[b, h] * difference.square().sum())
    torch.testing.assert_close(error, torch.tensor(slow) / (float(weight.sum()) * 5))


@pytest.mark.parametrize("kind", ["flow", "ddpm_eps", "ddpm_x0", "ddpm_v", "regression"])
def test_errors_are_those_of_chunks_whatever_the_model_says(kind: str):
    objective = make_objective(ObjectiveConfig(kind=kind))
    _, chunk, valid = drawn()
    noise = torch.randn(chunk.shape, generator=torch.Generator().manual_seed(2))
    level = objective.levels(3, torch.Generator().manual_seed(2))
    right = objective.target(chunk, noise, level)
    exits = torch.stack([right + 0.1, right])
    noised = noise_chunk(objective, chunk, noise, level)
    losses = objective_losses(objective, exits, noised, valid, distill=0.5)
    torch.testing.assert_close(losses.objective, torch.tensor([0.01, 0.0]))
    off = objective.chunk(noised.sample, right + 0.1, level) - chunk
    torch.testing.assert_close(losses.error[0], off[valid].square().mean())
    torch.testing.assert_close(losses.error[1], torch.tensor(0.0), rtol=0, atol=1e-6)


def test_each_mode_runs_and_supervises_its_depth():
    every = range(1, 5)
    assert plan_depth(DepthConfig(distill=0.3), every, 0, 0.0) == (4, None, 0.3, 0)

    def planned(mode: str, depths: range, step: int, uniform: float) -> tuple[int, int | None]:
        return plan_depth(DepthConfig(mode), depths, step, uniform)[:2]

    growing = [planned("curriculum", range(1, 4), step, 0.0) for step in (0, 1000, 2999, 4000)]
    assert growing == [(1, 1), (2, 2), (3, 3), (3, 3)]
    assert planned("curriculum", range(2, 5), 1000, 0.0) == (3, 3)
    drawn = [planned("random", every, 0, u) for u in (0.0, 0.24, 0.25, 0.99)]
    assert drawn == [(4, 1), (4, 1), (4, 2), (4, 4)]
    assert planned("random", range(3, 5), 0, 0.4) == (4, 3)


def test_a_depth_that_cannot_be_trained_is_refused():
    with pytest.raises(ConfigError, match=r"depth\.mode=deep is unknown\. Use all, random or"):
        DepthConfig("deep")
    with pytest.raises(ConfigError, match=r"depth\.distill=1\.0 must be from 0 up to below 1"):
        DepthConfig(distill=1.0)
    with pytest.raises(ConfigError, match=r"depth\.truncate=1 leaves .* Use mode=curr"):
        DepthConfig(truncate=1).require_trains(range(1, 5), 9)
    DepthConfig(truncate=1).require_trains(range(4, 5), 9)
    with pytest.raises(ConfigError, match=r"depth\.truncate=4 cuts nothing: the model has 4 loops"):
        DepthConfig(truncate=4).require_trains(range(4, 5), 9)
    with pytest.raises(ConfigError, match=r"depth\.stage=9 does nothing without depth\.mode=curr"):
        DepthConfig(stage=9)
    growing = DepthConfig("curriculum", truncate=1)
    growing.require_trains(range(1, 5), 3001)
    with pytest.raises(ConfigError, match=r"ends at K=3 in steps=3000.*model has 4 loops"):
        growing.require_trains(range(1, 5), 3000)
    growing.require_trains(range(2, 5), 2001)
