"""The blocks that are looped together: one of a stack, or all of them in turn.

Shapes: B batch, N tokens, D width, n of the tokens. What ends the loops is decided here: their
number, exit gates, or halting.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from loopdit.policy.block import Modulation
from loopdit.policy.fixed_point.injection import InputInjection
from loopdit.policy.loops.config import LoopConfig
from loopdit.policy.loops.exit_gates import ExitGate, mix_exits
from loopdit.policy.loops.halting import halt_and_skip, halt_softly
from loopdit.policy.loops.looped_block import Keep, LoopedBlock
from loopdit.policy.loops.rows import take_rows
from loopdit.policy.loops.sharpening import sharpness
from loopdit.policy.loops.truncation import cut


class Around(NamedTuple):
    """What all loops have in common, apart from the parameters.

    `start` (B, N, D): the tokens before the first loop. `modulations`: of each block. `bias`
    broadcasts to (B, heads, N, N), `positions` to (B, N, P).
    """

    start: Tensor
    modulations: Sequence[Modulation]
    bias: Tensor | None
    positions: Tensor | None

    def of_rows(self, rows: Tensor) -> "Around":
        """Those of the tokens `rows` (B, n), which attend to all."""
        return Around(
            take_rows(self.start, rows),
            [tuple(take_rows(part, rows) for part in parts) for parts in self.modulations],
            None if self.bias is None else take_rows(self.bias, rows),
            None if self.positions is None else take_rows(self.positions, rows),
        )


class LoopedUnit(nn.Module):
    """Looped blocks with their injection and their gate, where LoopConfig has one."""

    def __init__(self, blocks: Sequence[LoopedBlock], width: int, config: LoopConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(blocks)
        self.injection = InputInjection(width) if config.injection else None
        self.exit_gate = (
            ExitGate(width, config.exits == "token") if config.exits != "none" else None
        )
        self.halting_gate = ExitGate(width, per_token=True) if config.halting != "none" else None

    def forward(
        self,
        tokens: Tensor,
        condition: Tensor,
        loops: int,
        bias: Tensor | None,
        positions: Tensor | None,
        truncate: int | None,
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Arguments as of LoopedStack -> tokens (B, N, D), loops used (B, N), the tokens after
        each loop."""
        modulations = [block.block.modulate(condition) for block in self._looped()]
        around = Around(tokens, modulations, _with_axes(bias, 4), _with_axes(positions, 3))
        turn = partial(self._turn, around, 0 if truncate is None else loops - truncate)
        depth = len(self.blocks)
        if self.halting_gate is not None:
            states, used = (
                halt_softly(turn, self.halting_gate, tokens, depth, loops)
                if self.training
                else halt_and_skip(
                    turn, self.halting_gate, tokens, depth, loops, self.config.halt_at
                )
            )
            return states[-1], used, states
        states: list[Tensor] = []
        state = tokens
        for loop in range(loops):
            state = turn(state, loop, None, ())
            states.append(state)
        if self.exit_gate is not None:
            return *mix_exits(states, self.exit_gate), states
        return state, tokens.new_full(tokens.shape[:2], loops), states

    def _turn(
        self,
        around: Around,
        without_gradient: int,
        tokens: Tensor,
        loop: int,
        rows: Tensor | None,
        keeps: Sequence[Keep],
    ) -> Tensor:
        """One loop of `tokens` (B, n, D): the last four are a Turn's. The first `without_gradient`
        loops have none."""
        if rows is not None:
            around = around.of_rows(rows)
        if loop == without_gradient and loop > 0:
            # An injected input has its gradient from the loops that are left.
            tokens = cut(tokens, around.start) if self.injection is None else tokens.detach()
        with torch.set_grad_enabled(torch.is_grad_enabled() and loop >= without_gradient):
            return self._loop(tokens, loop, around, keeps)

    def _loop(self, tokens: Tensor, loop: int, around: Around, keeps: Sequence[Keep]) -> Tensor:
        beta = sharpness(loop, self.config.loops, self.config.sharpest)
        if self.injection is not None:
            tokens = self.injection(tokens, around.start)
        for i, block in enumerate(self._looped()):
            keep = keeps[i] if keeps else None
            tokens = block(
                tokens, around.modulations[i], loop, around.bias, beta, around.positions, keep
            )
        return tokens

    def _looped(self) -> list[LoopedBlock]:
        return cast(list[LoopedBlock], list(self.blocks))


def _with_axes(values: Tensor | None, axes: int) -> Tensor | None:
    """With leading axes of 1, up to so many."""
    return None if values is None else values[(None,) * (axes - values.ndim)]
