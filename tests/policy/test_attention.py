import pytest
import torch
from torch import Tensor

from loopdit.policy.attention import attend


def inputs(queries: int = 5, keys: int = 7, size: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 3, count, size) for count in (queries, keys, keys)]
    q, k, v = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return q, k, v


def slow(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, sharpness: float = 1.0) -> Tensor:
    """One query at a time, over the keys it may attend to. `bias` (N, M) float."""
    attended = torch.zeros(*q.shape[:3], v.shape[-1], dtype=q.dtype)
    for b, h, n in torch.cartesian_prod(*(torch.arange(size) for size in q.shape[:3])).tolist():
        seen = bias[n] > -torch.inf
        if seen.any():
            logits = sharpness * (k[b, h, seen] @ q[b, h, n]) / v.shape[-1] ** 0.5 + bias[n, seen]
            attended[b, h, n] = logits.softmax(0) @ v[b, h, seen]
    return attended


def test_attention_is_a_softmax_over_what_the_bias_leaves():
    q, k, v = inputs()
    bias = torch.randn(5, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    bias[bias > 1] = -torch.inf
    bias[2] = -torch.inf
    torch.testing.assert_close(attend(q, k, v, bias), slow(q, k, v, bias))
    allowed = bias > -torch.inf
    open_or_shut = torch.zeros_like(bias).masked_fill(~allowed, -torch.inf)
    torch.testing.assert_close(attend(q, k, v, allowed), slow(q, k, v, open_or_shut))


@pytest.mark.parametrize("sharpness", [2.5, torch.tensor(2.5)])
def test_sharpness_multiplies_the_logits_and_not_the_bias(sharpness: float | Tensor):
    q, k, v = inputs()
    bias = torch.randn(5, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = attend(q, k, v, bias, sharpness)
    torch.testing.assert_close(found, slow(q, k, v, bias, 2.5))


def test_numbers_added_to_queries_and_keys_leave_the_scale():
    q, k, v = inputs()
    longer_q, longer_k = (torch.cat([x, torch.zeros_like(x[..., :3])], -1) for x in (q, k))
    torch.testing.assert_close(attend(longer_q, longer_k, v), attend(q, k, v))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["mask", "bias", "learned bias"])
def test_a_query_with_nothing_to_attend_to_gives_zeros_and_zero_gradients(
    kind: str, dtype: torch.dtype
):
    q, k, v = (x.to(dtype).requires_grad_() for x in inputs())
    bias = torch.zeros(2, 1, 5, 7)
    bias[0, 0, 1] = bias[1, 0, :] = -torch.inf
    if kind == "learned bias":
        bias = bias.requires_grad_()
    attended = attend(q, k, v, bias == 0 if kind == "mask" else bias)
    assert attended[0, :, 1].abs().sum() == 0
    assert attended[1].abs().sum() == 0
    assert attended[0, :, 0].abs().sum() > 0
    attended.square().sum().backward()
    for leaf in (q, k, v):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
        assert leaf.grad[1].abs().sum() == 0
    assert q.grad is not None
    assert q.grad[0, :, 1].abs().sum() == 0
    if bias.grad is not None:
        assert bias.grad.isfinite().all()
        assert bias.grad[1].abs().sum() == 0


def test_no_keys_at_all_give_zeros():
    q, k, v = inputs(keys=0)
    assert attend(q, k, v).equal(torch.zeros_like(q))
    assert attend(q, k, v, torch.ones(5, 0, dtype=torch.bool)).equal(torch.zeros_like(q))


def test_without_a_bias_it_is_torchs_attention_bit_for_bit():
    q, k, v = (x.float() for x in inputs())
    plain = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    assert attend(q, k, v, sharpness=1.0).equal(plain)
