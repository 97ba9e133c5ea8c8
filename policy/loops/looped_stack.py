"""A few blocks applied K times, each by itself or all of them in turn: depth without parameters.

Shapes: B batch, N tokens, D width, C width of the condition. What the loops add to a plain stack
is in LoopConfig: embeddings and gates (`looped_block`), exit gates, halting, sharpening, injection
of the input. Knows nothing of what the tokens are; masks and biases come with the call.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from loopdit.errors import ConfigError
from loopdit.policy.block import AdaLNBlock
from loopdit.policy.loops.config import LoopConfig
from loopdit.policy.loops.looped_block import LoopedBlock
from loopdit.policy.loops.looped_unit import LoopedUnit


class LoopOutput(NamedTuple):
    """What a looped stack returns.

    `tokens` (B, N, D). `ponder` is what to add to the loss, a scalar: the mean of `loops_used`
    times LoopConfig.ponder, 0 without exits and halting. `loops_used` (B, N) of each token, the
    mean over blocks that are looped one by one. `states`, where asked for: the tokens before the
    first loop and after each, of one block after the other where they are looped one by one.
    """

    tokens: Tensor
    ponder: Tensor
    loops_used: Tensor
    states: list[Tensor] | None


class LoopedStack(nn.Module):
    """`blocks` blocks of `width`, each made by `make_block`, looped as `config` says."""

    def __init__(
        self, make_block: Callable[[], AdaLNBlock], blocks: int, width: int, config: LoopConfig
    ) -> None:
        super().__init__()
        self.config = config
        made = [LoopedBlock(make_block(), width, config.loops, config.init) for _ in range(blocks)]
        together = [made] if config.scope == "stack" else [[block] for block in made]
        self.units = nn.ModuleList(LoopedUnit(blocks, width, config) for blocks in together)

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
        """tokens (B, N, D), condition (B or 1, N or 1, C), `bias` and `positions` of the blocks.

        `loops`: 1 to LoopConfig.loops, all of them where it is None. `truncate`: only so many last
        loops of a unit carry gradient; the values stay as they are.
        Raises ConfigError for `loops` or `truncate` out of range.
        """
        most = self.config.loops
        loops = most if loops is None else loops
        if not 1 <= loops <= most:
            raise ConfigError(
                f"loops={loops} is out of range: this stack was made for 1 to {most} loops."
            )
        if truncate is not None and truncate < 1:
            raise ConfigError(f"truncate={truncate} must be at least 1, the loops with gradient.")
        states = [tokens]
        used: list[Tensor] = []
        for unit in self.units:
            tokens, own, after = unit(tokens, condition, loops, bias, positions, truncate)
            used.append(own)
            if keep_states:
                states += after
        loops_used = torch.stack(used).mean(0)
        gated = self.config.exits != "none" or self.config.halting != "none"
        ponder = (self.config.ponder if gated else 0.0) * loops_used.mean()
        return LoopOutput(tokens, ponder, loops_used, states if keep_states else None)
