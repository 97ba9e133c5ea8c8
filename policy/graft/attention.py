"""CogVideoX's joint attention with a sharpness, with positions, with keys and values that are kept.

An attention processor, which is how diffusers has its attention changed. It computes what
`CogVideoXAttnProcessor2_0` does, to the bit where nothing is asked for beyond that. What is asked
for comes through `attention_kwargs`, which diffusers hands to the processor by name.

Shapes: B batch, T text tokens, N video tokens, heads of size d, P position numbers of a token. Text
comes first along the tokens.
"""

from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor

from loopdit.policy.attention import attend
from loopdit.policy.loops.looped_block import Keep

# Appended to queries and to keys: both (B or 1, heads, T + N, P).
Appended = tuple[Tensor, Tensor]


class LoopedAttention:
    """See `CogVideoXAttnProcessor2_0`; the arguments after its own are of the loop."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
        sharpness: float = 1.0,
        appended: Appended | None = None,
        keep: Keep | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Video (B, N, D) and text (B, T, D) -> what each attended to, the same shapes.

        `keep` may replace the video's keys and values (B, heads, N, d + P) that are attended to.
        """
        layers: Any = attn  # diffusers declares its layers' types as unions
        text = encoder_hidden_states.shape[1]
        tokens = torch.cat([encoder_hidden_states, hidden_states], dim=1)
        queries, keys, values = (
            layer(tokens).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for layer in (layers.to_q, layers.to_k, layers.to_v)
        )
        if layers.norm_q is not None:
            queries = layers.norm_q(queries)
        if layers.norm_k is not None:
            keys = layers.norm_k(keys)
        if image_rotary_emb is not None:
            queries, keys = (_rotated(x, text, image_rotary_emb) for x in (queries, keys))
        if appended is not None:
            queries, keys = (
                torch.cat([own, more.to(own.dtype).expand(len(own), -1, -1, -1)], dim=-1)
                for own, more in zip((queries, keys), appended, strict=True)
            )
        if keep is not None:
            kept = keep((keys[:, :, text:], values[:, :, text:]))
            keys = torch.cat([keys[:, :, :text], kept[0]], dim=2)
            values = torch.cat([values[:, :, :text], kept[1]], dim=2)
        attended = attend(queries, keys, values, attention_mask, sharpness)
        out = layers.to_out[1](layers.to_out[0](attended.transpose(1, 2).flatten(2)))
        return out[:, text:], out[:, :text]


def _rotated(values: Tensor, text: int, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """(B, heads, T + N, d) with the video's rotated, as CogVideoX of 5B parameters has it."""
    own: Any = rotary  # declared as a tuple of one, and documented as cosines and sines
    rotated: Any = apply_rotary_emb(values[:, :, text:], own)
    return torch.cat([values[:, :, :text], rotated], dim=2)
