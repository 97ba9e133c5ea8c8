"""Softmax attention with a bias, a sharpness, and nothing where there is nothing to attend to.

Shapes: B batch, N queries, M keys, d head size. Knows nothing of where queries and keys come from.
"""

import torch
from torch import Tensor
from torch.nn import functional


def attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    bias: Tensor | None = None,
    sharpness: float | Tensor = 1.0,
) -> Tensor:
    """queries (B, heads, N, d), keys and values (B, heads, M, d) -> (B, heads, N, d).

    `bias` broadcasts to (B, heads, N, M): bool, where True may be attended to, or float, added to
    the logits, where -inf forbids. A query that is forbidden everything gets zeros, and passes a
    gradient of zero. `sharpness` multiplies the logits; a tensor broadcasts to the queries.

    Logits are scaled by the size of the values, which extra numbers in queries and keys (positions)
    leave as it is.
    """
    if isinstance(sharpness, Tensor):
        queries = queries * sharpness.to(queries.dtype)
        sharpness = 1.0
    size = values.shape[-1]
    # None is torch's own 1 / sqrt(d): the same bits as a call without it.
    plain = sharpness == 1.0 and queries.shape[-1] == size
    scale = None if plain else sharpness / size**0.5
    if bias is None:
        return functional.scaled_dot_product_attention(queries, keys, values, scale=scale)
    # Said here because kernels differ on a row without a key: zeros, NaN, or a mean of everything.
    if bias.dtype == torch.bool:
        nothing = ~bias.any(-1, keepdim=True)
        bias = bias | nothing
    else:
        nothing = (bias == -torch.inf).all(-1, keepdim=True)
        bias = bias.masked_fill(nothing, 0.0).to(queries.dtype)
    attended = functional.scaled_dot_product_attention(queries, keys, values, bias, scale=scale)
    return attended.masked_fill(nothing, 0.0)
