"""The canvas learns from examples what no constant says: see `moving_squares`."""

import pytest
import torch
from tests.policy.canvas.moving_squares import moving_squares
from torch import Tensor

from loopdit.policy.canvas.canvas_model import CanvasDraws, CanvasModel
from loopdit.policy.canvas.config import CanvasModelConfig
from loopdit.policy.canvas.joint_losses import METHODS, JointLoss, JointLossConfig
from loopdit.policy.loops.config import LoopConfig

SMALL = CanvasModelConfig(width=32, heads=2, blocks=1, loops=LoopConfig(loops=2))


def train(model: CanvasModel, method: str, steps: int) -> list[float]:
    """The sum of all losses at each step, whatever joins them in training."""
    data = moving_squares(512, seed=1)
    joint = JointLoss(model.layout.outputs, JointLossConfig(method=method))
    optimizer = torch.optim.AdamW([*model.parameters(), *joint.parameters()], lr=5e-3)
    generator = torch.Generator().manual_seed(2)
    sums: list[float] = []
    for _ in range(steps):
        rows = torch.randint(512, (16,), generator=generator)
        batch = {name: values[rows] for name, values in data.items()}
        losses = model.loss(batch, model.draw(16, generator))
        optimizer.zero_grad()
        joint.backward(losses.objective, model.parameters(), generator, losses.ponder)
        optimizer.step()
        sums.append(sum(float(loss.detach()) for loss in losses.objective.values()))
    return sums


def from_noise(model: CanvasModel, canvas: dict[str, Tensor]) -> dict[str, float]:
    """The errors of the best guess from noise alone."""
    count = len(canvas["reward"])
    noise = model.draw(count, torch.Generator().manual_seed(3)).noise
    with torch.no_grad():
        error = model.loss(canvas, CanvasDraws(noise, torch.zeros(count))).error
    return {name: float(value) for name, value in error.items()}


@pytest.mark.system
@pytest.mark.parametrize("method", METHODS)
def test_what_follows_from_the_inputs_is_predicted_better_than_by_any_constant(method: str):
    torch.manual_seed(0)
    model = CanvasModel(SMALL)
    sums = train(model, method, steps=150)
    assert sum(sums[-20:]) < 0.2 * sum(sums[:20])
    seen, unseen = moving_squares(512, seed=1), moving_squares(128, seed=4)
    errors = from_noise(model, unseen)
    for name in ("future_actions", "reward"):
        constant = float((unseen[name] - seen[name].mean(0)).square().mean())
        assert errors[name] < constant / 4
