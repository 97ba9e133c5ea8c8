"""Truncated back-propagation: only the last loops carry gradient, for less memory and time.

Cutting the earlier ones off would also cut off what made the tokens: an encoder would learn nothing
(arXiv 2502.05171 truncates too, and injects the input in every loop). Here the input gets the
gradient of the cut state, as if the loops between were the identity, which is what a residual
stack is nearest to.
"""

from torch import Tensor


def cut(state: Tensor, start: Tensor) -> Tensor:
    """The values of `state`; the gradient goes to `start`, of the same shape, instead."""
    return state.detach() + (start - start.detach())
