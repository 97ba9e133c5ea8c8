"""K as a number that arrives with the observation: a looped DiT's passes for any K.

`LoopedDiT` is told K by Python and unrolls it. Here K is a tensor and the loop `torch.while_loop`,
which exports as one ONNX `Loop`: one graph for every depth. What a loop does is the model's own;
both agree to rounding.

Shapes as in `looped_dit`; `loops` () int64, from 1 to `max_loops`. Not for training, nor for the
dense topology.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from loopdit.policy.block import AdaLNBlock, Modulation
from loopdit.policy.looped_dit import Context, Inputs, LoopedDiT
from loopdit.policy.objectives.objective import CLEAN


def encode_counted(model: LoopedDiT, inputs: Inputs, loops: Tensor) -> Context:
    """What `LoopedDiT.encode` gives for K = `loops`."""
    tokens, mask = model.observation_tokens(inputs)
    # (D,): of a leading axis of one torch would not know, inside the loop, that it is one.
    condition = model.condition(torch.full((1,), CLEAN, device=tokens.device))[0, 0]
    modulations = [_modulation(block, condition) for block in model.stack]
    bias = None if mask is None else mask[:, None, None]
    depth, deepest = len(modulations), model.config.max_loops
    batch, count, width = tokens.shape
    heads = model.stack[0].heads
    blank = tokens.new_zeros(deepest * depth, batch, heads, count, width // heads)
    first = tokens.clone()

    def run(loop: Tensor, tokens: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, ...]:
        tokens = _loop_input(model, tokens, first, loop)
        made: list[tuple[Tensor, Tensor]] = []
        for block, modulation in zip(model.stack, modulations, strict=True):
            tokens, key_value = block.run(tokens, modulation, bias=bias)
            made.append(key_value)
        new_keys, new_values = (torch.stack(one) for one in zip(*made, strict=True))
        # A loop's come in at the end and the oldest leave at the front: nothing is written by
        # index, which runtimes do slowly.
        keys = torch.cat([keys[depth:], new_keys])
        return loop + 1, tokens, keys, torch.cat([values[depth:], new_values])

    _, _, keys, values = _while_below(loops, run, tokens, blank, blank.clone())
    kept = cast(int, loops.item()) * depth
    torch._check(kept >= 1)  # pyright: ignore[reportPrivateUsage] - the way to bound a size
    torch._check(kept <= deepest * depth)  # pyright: ignore[reportPrivateUsage] - as above
    start = deepest * depth - kept
    return Context(
        keys.narrow(0, start, kept), values.narrow(0, start, kept), mask, inputs.committed
    )


def predict_counted(
    model: LoopedDiT, sample: Tensor, times: Tensor, context: Context, loops: Tensor
) -> Tensor:
    """What `LoopedDiT.predict` gives where `context` was encoded for K = `loops`."""
    tokens, condition, bias = model.action_tokens(sample, times, context)
    stack = model.action_stack
    modulations = [_modulation(block, condition) for block in stack]
    first = tokens.clone()

    def run(loop: Tensor, tokens: Tensor) -> tuple[Tensor, ...]:
        tokens = _loop_input(model, tokens, first, loop)
        for i, (block, modulation) in enumerate(zip(stack, modulations, strict=True)):
            at = (loop * len(modulations) + i).reshape(1)
            keys, values = (one.index_select(0, at)[0] for one in (context.keys, context.values))
            tokens, _ = block.run(tokens, modulation, (keys, values), bias)
        return loop + 1, tokens

    _, tokens = _while_below(loops, run, tokens)
    return model.action_output(tokens)


def _while_below(
    loops: Tensor, run: Callable[..., tuple[Tensor, ...]], *state: Tensor
) -> tuple[Tensor, ...]:
    """The number of the loop and the state that `run` leaves, from loop 0 to `loops` - 1."""
    start = torch.zeros((), dtype=torch.int64, device=loops.device)
    return torch.while_loop(lambda loop, *_: loop < loops, run, (start, *state))  # pyright: ignore[reportUnknownMemberType, reportReturnType] - untyped in torch


def _modulation(block: AdaLNBlock, condition: Tensor) -> Modulation:
    """Each part a tensor of its own: what a loop is given must not share memory."""
    return tuple(part.clone() for part in block.modulate(condition))


def _loop_input(model: LoopedDiT, tokens: Tensor, first: Tensor, loop: Tensor) -> Tensor:
    """Injection leaves the first loop's input as it is, so that it needs no case of its own."""
    if model.injection is not None:
        tokens = model.injection(tokens, first)
    return tokens + model.loop_embedding.index_select(0, loop.reshape(1))
