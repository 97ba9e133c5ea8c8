"""One transformer block: attention and SwiGLU, both modulated by a condition per token (AdaLN).

Shapes: B batch, N tokens, M tokens attended to besides themselves, D width, d = D / heads.
Knows nothing of loops, observations or diffusion time: the time arrives as the condition.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

HEAD_SIZE = 32

KeyValue = tuple[Tensor, Tensor]


class AdaLNBlock(nn.Module):
    """Pre-norm block; shifts, scales and gates come from the condition (DiT, arXiv 2212.09748).

    The modulation starts as the identity with open gates, where DiT starts with closed ones; the
    two have not been compared here.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        if width % HEAD_SIZE:
            raise ValueError(f"width={width} is not a multiple of {HEAD_SIZE}, the head size.")
        hidden = width * 8 // 3
        self.heads = width // HEAD_SIZE
        self.attention_norm = nn.LayerNorm(width, elementwise_affine=False)
        self.queries_keys_values = nn.Linear(width, 3 * width, bias=False)
        self.attention_out = nn.Linear(width, width, bias=False)
        self.feedforward_norm = nn.LayerNorm(width, elementwise_affine=False)
        self.feedforward_in = nn.Linear(width, 2 * hidden, bias=False)
        self.feedforward_out = nn.Linear(hidden, width, bias=False)
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        with torch.no_grad():
            shift_scale_gate = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0, 1.0])
            self.modulation.bias.copy_(shift_scale_gate.repeat_interleave(width))

    def forward(
        self, tokens: Tensor, condition: Tensor, context: KeyValue | None = None
    ) -> tuple[Tensor, KeyValue]:
        """tokens (B, N, D), condition (B or 1, N or 1, D) -> tokens (B, N, D), own keys and values.

        `context` is the (B, heads, M, d) keys and values of tokens that these also attend to.
        """
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = self.modulation(condition).chunk(6, -1)
        normed = self.attention_norm(tokens) * (1 + scale_a) + shift_a
        queries, keys, values = self._split(self.queries_keys_values(normed))
        own = (keys, values)
        if context is not None:
            keys = torch.cat([context[0], keys], dim=2)  # (B, heads, M + N, d)
            values = torch.cat([context[1], values], dim=2)
        attended = functional.scaled_dot_product_attention(queries, keys, values)
        tokens = tokens + gate_a * self.attention_out(attended.transpose(1, 2).flatten(2))
        normed = self.feedforward_norm(tokens) * (1 + scale_f) + shift_f
        gate, value = self.feedforward_in(normed).chunk(2, -1)
        return tokens + gate_f * self.feedforward_out(functional.silu(gate) * value), own

    def _split(self, projected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, N, 3 D) -> three of (B, heads, N, d)."""
        shaped = projected.unflatten(-1, (3, self.heads, HEAD_SIZE))
        queries, keys, values = shaped.permute(2, 0, 3, 1, 4).unbind(0)
        return queries, keys, values
