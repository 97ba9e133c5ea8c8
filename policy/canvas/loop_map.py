"""The loops of a canvas model as a map of its tokens, for the diagnostics of `fixed_point`.

See `fixed_point.adapters.stack_loops`: this is that of the model's stack on a noised canvas.
"""

import torch
from torch import Tensor

from loopdit.policy.canvas.canvas_model import Canvas, CanvasModel
from loopdit.policy.fixed_point.adapters import stack_loops
from loopdit.policy.fixed_point.step import LoopedMap


def canvas_loops(model: CanvasModel, canvas: Canvas, level: Tensor, unit: int = 0) -> LoopedMap:
    """The map of one block (of the whole stack, where that is looped) at a noised canvas.

    A loop beyond the trained ones is the last of them again. Raises ConfigError for a unit that
    the model has not.
    """
    with torch.no_grad():
        tokens, condition = model.tokens(canvas), model.condition(level)
    return stack_loops(model.stack, tokens, condition, model.bias, model.coordinates, unit)
