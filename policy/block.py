"""One transformer block: attention and SwiGLU, both modulated by a condition per token (AdaLN).

Shapes: B batch, N tokens, M tokens attended to besides themselves, D width, d = D / heads, C width
of the condition, P position numbers of a token. Knows nothing of loops, observations or diffusion
time: the time arrives as the condition.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from loopdit.policy.attention import attend

HEAD_SIZE = 32

KeyValue = tuple[Tensor, Tensor]
# What has the signature of `attend`: queries, keys, values, bias, sharpness -> attended.
Attention = Callable[[Tensor, Tensor, Tensor, Tensor | None, float | Tensor], Tensor]
Modulation = tuple[Tensor, ...]  # shift, scale, gate of the attention, then of the feed-forward


class AdaLNBlock(nn.Module):
    """Pre-norm block; shifts, scales and gates come from the condition (DiT, arXiv 2212.09748).

    The modulation starts as the identity with open gates, where DiT starts with closed ones; the
    two have not been compared here.

    With `geometric` = P, each token's P position numbers p are appended to its key, and A p + b to
    its query, with A and b learned for each head and zero at the start: the logits gain
    (A p_i + b) . p_j. One map is enough, as two would make the same bilinear form, and two that
    both start at zero would never leave it.
    """

    def __init__(
        self,
        width: int,
        heads: int | None = None,
        condition_width: int | None = None,
        geometric: int = 0,
        attention: Attention = attend,
    ) -> None:
        super().__init__()
        if heads is None and width % HEAD_SIZE:
            raise ValueError(f"width={width} is not a multiple of {HEAD_SIZE}, the head size.")
        self.heads = width // HEAD_SIZE if heads is None else heads
        if self.heads < 1 or width % self.heads:
            raise ValueError(f"width={width} is not a multiple of heads={self.heads}.")
        self.attention = attention
        hidden = width * 8 // 3
        self.attention_norm = nn.LayerNorm(width, elementwise_affine=False)
        self.queries_keys_values = nn.Linear(width, 3 * width, bias=False)
        self.attention_out = nn.Linear(width, width, bias=False)
        self.feedforward_norm = nn.LayerNorm(width, elementwise_affine=False)
        self.feedforward_in = nn.Linear(width, 2 * hidden, bias=False)
        self.feedforward_out = nn.Linear(hidden, width, bias=False)
        self.modulation = nn.Linear(condition_width or width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        with torch.no_grad():
            shift_scale_gate = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0, 1.0])
            self.modulation.bias.copy_(shift_scale_gate.repeat_interleave(width))
        self.query_positions = nn.Linear(geometric, self.heads * geometric) if geometric else None
        if self.query_positions is not None:
            nn.init.zeros_(self.query_positions.weight)
            nn.init.zeros_(self.query_positions.bias)

    def forward(
        self,
        tokens: Tensor,
        condition: Tensor,
        context: KeyValue | None = None,
        bias: Tensor | None = None,
        sharpness: float | Tensor = 1.0,
        positions: Tensor | None = None,
    ) -> tuple[Tensor, KeyValue]:
        """tokens (B, N, D), condition (B or 1, N or 1, C) -> tokens (B, N, D), own keys and values.

        `context` is the (B, heads, M, d) keys and values of tokens that these also attend to; they
        come first, before the tokens' own, along the last axis of `bias`. `bias` and `sharpness`
        as in `attend`. `positions` (B or 1, N, P) or (N, P) is read where the block is geometric.
        """
        modulation = self.modulate(condition)
        return self.run(tokens, modulation, context, bias, sharpness, positions)

    def run(
        self,
        tokens: Tensor,
        modulation: Modulation,
        context: KeyValue | None = None,
        bias: Tensor | None = None,
        sharpness: float | Tensor = 1.0,
        positions: Tensor | None = None,
    ) -> tuple[Tensor, KeyValue]:
        """`forward` with what `modulate` made of the condition: once for all loops of a pass."""
        queries, keys, values = self.project(tokens, modulation, positions)
        own = (keys, values)
        if context is not None:
            keys = torch.cat([context[0], keys], dim=2)  # (B, heads, M + N, d)
            values = torch.cat([context[1], values], dim=2)
        attended = self.attention(queries, keys, values, bias, sharpness)
        return self.update(tokens, modulation, attended), own

    def modulate(self, condition: Tensor) -> Modulation:
        """Condition (B or 1, N or 1, C) -> six of (B or 1, N or 1, D)."""
        return self.modulation(condition).chunk(6, -1)

    def project(
        self, tokens: Tensor, modulation: Modulation, positions: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """tokens (B, N, D) -> queries, keys (B, heads, N, d + P), values (B, heads, N, d)."""
        shift, scale = modulation[:2]
        normed = self.attention_norm(tokens) * (1 + scale) + shift
        queries, keys, values = self._split(self.queries_keys_values(normed))
        if self.query_positions is None:
            return queries, keys, values
        if positions is None:
            raise ValueError("a geometric block needs the positions of its tokens.")
        mapped = self.query_positions(positions).unflatten(-1, (self.heads, -1)).transpose(-2, -3)
        shape = (*keys.shape[:3], positions.shape[-1])  # (B, heads, N, P)
        repeated = positions.unsqueeze(-3).expand(shape).to(keys.dtype)
        return (
            torch.cat([queries, mapped.expand(shape).to(queries.dtype)], dim=-1),
            torch.cat([keys, repeated], dim=-1),
            values,
        )

    def update(self, tokens: Tensor, modulation: Modulation, attended: Tensor) -> Tensor:
        """tokens (B, N, D) and what they attended to (B, heads, N, d) -> tokens (B, N, D)."""
        gate_a, shift_f, scale_f, gate_f = modulation[2:]
        tokens = tokens + gate_a * self.attention_out(attended.transpose(1, 2).flatten(2))
        normed = self.feedforward_norm(tokens) * (1 + scale_f) + shift_f
        gate, value = self.feedforward_in(normed).chunk(2, -1)
        return tokens + gate_f * self.feedforward_out(functional.silu(gate) * value)

    def _split(self, projected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, N, 3 D) -> three of (B, heads, N, d)."""
        shaped = projected.unflatten(-1, (3, self.heads, -1))
        queries, keys, values = shaped.permute(2, 0, 3, 1, 4).unbind(0)
        return queries, keys, values
