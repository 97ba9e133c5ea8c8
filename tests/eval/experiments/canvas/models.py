"""Small canvas models and canvases for them."""

import torch
from torch import Tensor

from loopdit.eval.experiments.tasks.registry import task_named
from loopdit.policy.canvas.canvas_model import CanvasModel
from loopdit.policy.canvas.config import CanvasModelConfig
from loopdit.policy.loops.config import LoopConfig

TASK = "contacts"


def model_of(loops: LoopConfig, blocks: int = 2, seed: int = 0, task: str = TASK) -> CanvasModel:
    """With parameters off their start, so that gates and heads say something."""
    torch.manual_seed(seed)
    chosen = task_named(task)
    config = CanvasModelConfig(
        width=16, heads=2, blocks=blocks, loops=loops, modalities=chosen.modalities
    )
    model = CanvasModel(config, chosen.layout)
    stir(model)
    return model


def stir(model: CanvasModel) -> None:
    """Move every parameter a little."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))


def canvases(count: int, task: str = TASK) -> dict[str, Tensor]:
    return task_named(task).canvases(count, 0, "train")


def said(model: CanvasModel, canvas: dict[str, Tensor], loops: int | None = None) -> Tensor:
    """What a model predicts of its task's output at half the noise."""
    count = len(canvas[model.layout.outputs[0]])
    noise = model.draw(count, torch.Generator().manual_seed(1)).noise
    level = torch.full((count,), 0.5)
    out = model(model.noised(canvas, noise, level), level, loops)
    return out.predicted[model.layout.outputs[0]]
