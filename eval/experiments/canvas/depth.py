"""How many loops a step of a canvas model trains, and what the shallow depths are taught.

`fixed` runs all loops. `curriculum` is the paper's: one loop more after every `stage` of the
training, a fifth of it, as 1,000 of 5,000 steps are. `random` draws a depth for each step. `any`
trains every depth in each step; `distill` is the share of the deepest one's own word in what the
shallower ones are taught (intra-loop self-distillation, arXiv 2604.09168), with the target for the
rest. Depths are separate passes here, as each block is looped by itself: `any` costs (K + 1) / 2
passes of K loops.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from loopdit.command import option, require_choice, require_effect
from loopdit.errors import ConfigError
from loopdit.policy.canvas.canvas_model import Canvas, CanvasDraws, CanvasModel

FIXED, CURRICULUM, RANDOM, ANY = "fixed", "curriculum", "random", "any"
_STAGES = 5


@dataclass(frozen=True)
class DepthOptions:
    """See the module."""

    mode: str = option(FIXED, f"{FIXED}, {CURRICULUM}, {RANDOM} or {ANY}")
    distill: float = option(0.0, "share of the deepest word in a shallower depth's target")

    def __post_init__(self) -> None:
        require_choice("depth.mode", self.mode, (FIXED, CURRICULUM, RANDOM, ANY))
        if not 0 <= self.distill < 1:
            raise ConfigError(f"depth.distill={self.distill} must be from 0 up to below 1.")
        if self.mode != ANY:
            require_effect(self, ("distill",), f"depth.mode={ANY}", "depth.")


def loops_of(
    options: DepthOptions, most: int, step: int, steps: int, generator: torch.Generator
) -> int:
    """How many loops the step runs at most."""
    if options.mode == CURRICULUM:
        return min(1 + step * _STAGES // steps, most)
    if options.mode == RANDOM:
        return int(torch.randint(1, most + 1, (), generator=generator))
    return most


def depth_losses(
    model: CanvasModel, canvas: Canvas, draws: CanvasDraws, loops: int, options: DepthOptions
) -> tuple[dict[str, Tensor], Tensor]:
    """By output region what is minimised, a scalar, and the ponder cost."""
    if options.mode != ANY:
        losses = model.loss(canvas, draws, loops)
        return losses.objective, losses.ponder
    noisy, objective = model.noised(canvas, draws.noise, draws.level), model.objective
    outputs = [model(noisy, draws.level, depth) for depth in range(1, loops + 1)]
    deepest = outputs[-1].predicted
    means: dict[str, Tensor] = {}
    for name in model.layout.outputs:
        target = objective.target(canvas[name], draws.noise[name], draws.level)
        taught = torch.lerp(target, objective.as_target(deepest[name].detach()), options.distill)
        each = [
            objective.loss(output.predicted[name], target if output is outputs[-1] else taught)
            for output in outputs
        ]
        means[name] = torch.stack(each).mean()
    return means, torch.stack([output.ponder for output in outputs]).mean()
