"""What this folder works on: one loop of a model, as a function of its state and its number.

Shapes: B samples, N tokens, D width. A sample's next state depends on its own state alone, as in
every model here: attention stays within a sample. Conditions, masks and inputs are the step's own.
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

# (state (B, N, D), loop counted from 0) -> the next state (B, N, D)
Step = Callable[[Tensor, int], Tensor]


class LoopedMap(NamedTuple):
    """A step, and the state (B, N, D) that it is first applied to."""

    step: Step
    start: Tensor


def at_loop(step: Step, loop: int) -> Callable[[Tensor], Tensor]:
    """The step as a function of the state alone: what it is where its loop number is `loop`."""
    return lambda state: step(state, loop)
