"""A block that is applied again and again, with an embedding and a gate of its own for each loop.

    h <- g F(h + e, t) + (1 - g) h      g = sigmoid(w . h + b), a number for each token

Section 3.2 of the paper, with the gate it describes and equation 1 leaves out: e (D), w (D) and b
of each loop, 2 D + 1 numbers. Shapes: B batch, N tokens, D width. How many loops are run, and what
else happens between them, is the stack's.

Embeddings start at 0. With the identity start the first loop computes what the block does and later
ones hardly change it: the first gate is 1 and later ones are sigmoid(-6) = 0.0025. In floating
point a sigmoid is 1 only where its gradient is 0, so a gate that started there would never move.
The first loop's gate is therefore 2 sigmoid(w . h + b), which is 1 at 0: exact, and as free to move
as any. It may pass 1, up to 2: a step beyond the block's.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from loopdit.policy.block import AdaLNBlock, KeyValue, Modulation

_CLOSED = -6.0

# The tokens' own keys and values -> those that they attend to.
Keep = Callable[[KeyValue], KeyValue]


class LoopedBlock(nn.Module):
    """One block and the parameters of its `loops`; `init` as in LoopConfig."""

    def __init__(self, block: AdaLNBlock, width: int, loops: int, init: str) -> None:
        super().__init__()
        self.block = block
        self.first_gate_is_twice = init == "identity"
        self.loop_embedding = nn.Parameter(torch.zeros(loops, width))
        self.gate_weight = nn.Parameter(torch.zeros(loops, width))
        self.gate_bias = nn.Parameter(torch.zeros(loops))
        if init == "identity":
            nn.init.constant_(self.gate_bias[1:], _CLOSED)

    def forward(
        self,
        tokens: Tensor,
        modulation: Modulation,
        loop: int,
        bias: Tensor | None = None,
        sharpness: float = 1.0,
        positions: Tensor | None = None,
        keep: Keep | None = None,
    ) -> Tensor:
        """One loop: tokens (B, N, D) -> (B, N, D).

        `modulation` is what the block makes of its condition, once for all loops. The other
        arguments are those of the block; `keep` may replace the keys and values attended to.
        """
        entered = tokens + self.loop_embedding[loop]
        queries, keys, values = self.block.project(entered, modulation, positions)
        if keep is not None:
            keys, values = keep((keys, values))
        attended = self.block.attention(queries, keys, values, bias, sharpness)
        updated = self.block.update(entered, modulation, attended)
        # A lerp, because it is exactly `updated` at 1.
        return torch.lerp(tokens.to(updated.dtype), updated, self.gate(tokens, loop, updated.dtype))

    def gate(self, tokens: Tensor, loop: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """tokens (B, N, D) -> g (B, N, 1)."""
        weight, bias = self.gate_weight[loop, None], self.gate_bias[loop, None]
        gate = functional.linear(tokens, weight, bias).sigmoid().to(dtype)
        return 2 * gate if loop == 0 and self.first_gate_is_twice else gate
