"""The loops of a canvas model as a map of its tokens, for the diagnostics of `fixed_point`.

Shapes: B samples, N positions, D width. Where blocks are looped one by one, each has a map of its
own, which starts where the block before it ended. Exit gates and halting are left out: they decide
which states count, not what a loop does.
"""

from typing import cast

import torch
from torch import Tensor

from loopdit.errors import ConfigError
from loopdit.policy.canvas.canvas_model import Canvas, CanvasModel
from loopdit.policy.fixed_point.step import LoopedMap
from loopdit.policy.loops.looped_block import LoopedBlock
from loopdit.policy.loops.looped_unit import LoopedUnit
from loopdit.policy.loops.sharpening import sharpness


def canvas_loops(model: CanvasModel, canvas: Canvas, level: Tensor, unit: int = 0) -> LoopedMap:
    """The map of one block (of the whole stack, where that is looped) at a noised canvas.

    A loop beyond the trained ones is the last of them again. Raises ConfigError for a unit that
    the model has not.
    """
    config, units = model.config.loops, model.stack.units
    if not 0 <= unit < len(units):
        raise ConfigError(f"unit={unit} is out of range: this model loops {len(units)} units.")
    with torch.no_grad():
        states = model(canvas, level, keep_states=True).states
        condition = model.condition(level)
        looped = cast(LoopedUnit, units[unit])
        blocks = cast(list[LoopedBlock], list(looped.blocks))
        modulations = [block.block.modulate(condition) for block in blocks]
    start = states[unit * config.loops]

    def step(state: Tensor, loop: int) -> Tensor:
        loop = min(loop, config.loops - 1)
        beta = sharpness(loop, config.loops, config.sharpest)
        if looped.injection is not None:
            state = looped.injection(state, start)
        for block, modulation in zip(blocks, modulations, strict=True):
            state = block(state, modulation, loop, model.bias, beta, model.coordinates)
        return state

    return LoopedMap(step, start)
