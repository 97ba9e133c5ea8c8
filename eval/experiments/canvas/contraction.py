"""A penalty on how much the last loop of each looped unit amplifies its state, on noised canvases.

For canvas models with input injection (`policy.fixed_point.injection`): with it the loops can have
a fixed point that depends on the canvas, and the penalty makes the last loop bring near states
nearer (Jacobian regularisation, arXiv 2106.14342, one probe a canvas).
"""

import torch
from torch import Tensor

from loopdit.policy.canvas.canvas_model import Canvas, CanvasModel
from loopdit.policy.canvas.loop_map import canvas_loops
from loopdit.policy.fixed_point.jacobian import jacobian_penalty
from loopdit.policy.fixed_point.step import at_loop


def contraction_penalty(
    model: CanvasModel, noisy: Canvas, level: Tensor, generator: torch.Generator
) -> Tensor:
    """The mean over units and canvases of |J|^2 / n of the last loop's Jacobian: a scalar with a
    gradient to the blocks and the injection, and not to what made the tokens."""
    loops = model.config.loops.loops
    penalties: list[Tensor] = []
    for unit in range(len(model.stack.units)):
        step, state = canvas_loops(model, noisy, level, unit)
        with torch.no_grad():
            for loop in range(loops - 1):
                state = step(state, loop)
        penalties.append(jacobian_penalty(at_loop(step, loops - 1), state, generator))
    return torch.stack(penalties).mean()
