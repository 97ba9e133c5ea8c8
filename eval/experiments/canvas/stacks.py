"""What takes the place of a canvas model's looped stack in comparisons: peers, and one of ours.

- prelude_core_coda: some blocks once, one core looped with the input mixed in, some blocks once;
  as RD-VLA (arXiv 2602.07845) and its kin (arXiv 2502.05171), here in sizes that fit a third each.
- output_loops: the first loop is of all tokens; later ones move output tokens alone, which attend
  to what the first loop's keys and values of the given ones were.

Blocks looped in turn with an embedding for each loop (`loops.scope=stack`) are the Universal
Transformer's (arXiv 1807.03819) without its halting, and need no module of their own.

Shapes: B batch, N tokens, D width. Each is called as LoopedStack is, and returns what it returns.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import cast

from torch import Tensor, nn

from loopdit.errors import ConfigError
from loopdit.policy.block import AdaLNBlock
from loopdit.policy.canvas.canvas_model import CanvasModel
from loopdit.policy.loops.config import LoopConfig
from loopdit.policy.loops.looped_block import LoopedBlock
from loopdit.policy.loops.looped_stack import LoopedStack, LoopOutput


def put_stack(model: CanvasModel, name: str) -> None:
    """Give a fresh model the stack of that name in place of its own."""
    model.stack = STACKS[name](model)


class PreludeCoreCoda(LoopedStack):
    """A third of the blocks before, a third looped in turn with injection, a third after."""

    def __init__(self, model: CanvasModel) -> None:
        nn.Module.__init__(self)
        config = model.config
        if config.blocks < 3:
            raise ConfigError(
                f"model.blocks={config.blocks}: stack=prelude_core_coda takes 3 or more."
            )
        third = config.blocks // 3
        once = LoopConfig(loops=1, init=config.loops.init)
        looped = replace(config.loops, scope="stack", injection=True)
        sizes = ((third, once), (config.blocks - 2 * third, looped), (third, once))
        self.config = config.loops
        self.parts = nn.ModuleList(
            LoopedStack(lambda: _block(model), blocks, config.width, loops)
            for blocks, loops in sizes
        )

    def forward(
        self,
        tokens: Tensor,
        condition: Tensor,
        loops: int | None = None,
        bias: Tensor | None = None,
        positions: Tensor | None = None,
        keep_states: bool = False,
        truncate: int | None = None,
    ) -> LoopOutput:
        """See LoopedStack; `states` are the core's."""
        prelude, core, coda = cast(list[LoopedStack], list(self.parts))
        tokens = prelude(tokens, condition, bias=bias, positions=positions).tokens
        middle = core(tokens, condition, loops, bias, positions, keep_states, truncate)
        last = coda(middle.tokens, condition, bias=bias, positions=positions)
        return middle._replace(tokens=last.tokens)


class OutputLoops(LoopedStack):
    """See the module. Each block is looped before the next, as in v1."""

    def __init__(self, model: CanvasModel) -> None:
        config = model.config
        if config.loops != LoopConfig(loops=config.loops.loops, init=config.loops.init):
            raise ConfigError("stack=output_loops takes loops.loops and loops.init alone.")
        super().__init__(lambda: _block(model), config.blocks, config.width, config.loops)
        moved = model.layout.is_output().nonzero().squeeze(-1)
        self.register_buffer("moved", moved, persistent=False)

    def forward(
        self,
        tokens: Tensor,
        condition: Tensor,
        loops: int | None = None,
        bias: Tensor | None = None,
        positions: Tensor | None = None,
        keep_states: bool = False,
        truncate: int | None = None,
    ) -> LoopOutput:
        """See LoopedStack; `states` are not kept, and all loops carry gradient."""
        loops = self.config.loops if loops is None else loops
        moved = self.get_buffer("moved")
        for unit in self.units:
            (block,) = cast(list[LoopedBlock], list(cast(nn.ModuleList, unit.blocks)))
            modulation = block.block.modulate(condition)
            kept: list[tuple[Tensor, Tensor]] = []

            def keep(
                new: tuple[Tensor, Tensor], kept: list[tuple[Tensor, Tensor]] = kept
            ) -> tuple[Tensor, Tensor]:
                if not kept:
                    kept.append(new)
                    return new
                keys, values = (
                    old.index_copy(2, moved, part) for old, part in zip(kept[0], new, strict=True)
                )
                return keys, values

            tokens = block(tokens, modulation, 0, bias, 1.0, positions, keep)
            of_moved = tuple(p[:, moved] if p.shape[1] > 1 else p for p in modulation)
            rows = None if bias is None else bias[..., moved, :]
            places = None if positions is None else positions[..., moved, :]
            part = tokens[:, moved]
            for loop in range(1, loops):
                part = block(part, of_moved, loop, rows, 1.0, places, keep)
            tokens = tokens.index_copy(1, moved, part)
        used = tokens.new_full(tokens.shape[:2], 1.0)
        used[:, moved] = loops
        return LoopOutput(tokens, tokens.new_zeros(()), used, None)


def _block(model: CanvasModel) -> AdaLNBlock:
    config = model.config
    if model.attention is not None:
        raise ConfigError("the stacks of peers take model.execution=mask.")
    geometric = 3 if config.geometric else 0
    return AdaLNBlock(config.width, config.heads, 2 * config.width, geometric)


# By name; a script that has another may add it.
STACKS: dict[str, Callable[[CanvasModel], LoopedStack]] = {
    "looped": lambda model: model.stack,
    "prelude_core_coda": PreludeCoreCoda,
    "output_loops": OutputLoops,
}
