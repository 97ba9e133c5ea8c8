import pytest
import torch
from torch import Tensor
from torch.nn import functional

from loopdit.policy.block import AdaLNBlock


def seeded(block: AdaLNBlock) -> AdaLNBlock:
    """Fresh modulations and position maps are zero, which would hide them."""
    generator = torch.Generator().manual_seed(0)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    return block.double().requires_grad_(False)


def random(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def slow(
    block: AdaLNBlock, tokens: Tensor, condition: Tensor, logits_bias: Tensor, sharpness: float
) -> Tensor:
    """The block written out, one head at a time. `logits_bias` (B, heads, N, N)."""
    width = tokens.shape[-1]
    size = width // block.heads
    shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = block.modulation(condition).chunk(6, -1)
    normed = functional.layer_norm(tokens, (width,)) * (1 + scale_a) + shift_a
    queries, keys, values = (normed @ block.queries_keys_values.weight.T).split(width, -1)
    heads: list[Tensor] = []
    for h in range(block.heads):
        part = slice(size * h, size * (h + 1))
        logits = sharpness * queries[..., part] @ keys[..., part].mT / size**0.5
        heads.append((logits + logits_bias[:, h]).softmax(-1) @ values[..., part])
    tokens = tokens + gate_a * (torch.cat(heads, -1) @ block.attention_out.weight.T)
    normed = functional.layer_norm(tokens, (width,)) * (1 + scale_f) + shift_f
    gate, value = (normed @ block.feedforward_in.weight.T).chunk(2, -1)
    hidden = gate * torch.sigmoid(gate) * value
    return tokens + gate_f * (hidden @ block.feedforward_out.weight.T)


@pytest.mark.parametrize(("width", "heads", "used"), [(64, None, 2), (68, 4, 4), (95, 5, 5)])
def test_a_block_of_any_width_is_what_its_equations_say(width: int, heads: int | None, used: int):
    block = seeded(AdaLNBlock(width, heads, condition_width=24))
    tokens, condition = random(2, 6, width), random(2, 6, 24, seed=2)
    bias = random(2, used, 6, 6, seed=3)
    found, _ = block(tokens, condition, bias=bias, sharpness=1.5)
    torch.testing.assert_close(found, slow(block, tokens, condition, bias, 1.5))


def test_context_and_own_tokens_are_attended_to_as_one_sequence():
    block = seeded(AdaLNBlock(64))
    tokens, condition = random(2, 6, 64), random(2, 6, 64, seed=2)
    allowed = random(6, 6, seed=3) > 0
    whole, (keys, values) = block(tokens, condition, bias=allowed)
    context = keys[:, :, :2], values[:, :, :2]
    rest, _ = block(tokens[:, 2:], condition[:, 2:], context, bias=allowed[2:])
    torch.testing.assert_close(rest, whole[:, 2:])


@pytest.mark.parametrize("batched", [False, True])
def test_positions_add_a_learned_bilinear_form_of_two_places_to_the_logits(batched: bool):
    block = seeded(AdaLNBlock(64, geometric=3))
    tokens, condition = random(2, 6, 64), random(1, 1, 64, seed=2)
    positions = random(2, 6, 3, seed=3) if batched else random(6, 3, seed=3)
    assert block.query_positions is not None
    weight = block.query_positions.weight.view(2, 3, 3)
    offset = block.query_positions.bias.view(2, 3)
    bias = torch.zeros(2, 2, 6, 6, dtype=torch.float64)
    for b, h in ((0, 0), (0, 1), (1, 0), (1, 1)):
        places = positions[b] if batched else positions
        for i in range(6):
            for j in range(6):
                bias[b, h, i, j] = (weight[h] @ places[i] + offset[h]) @ places[j] / 32**0.5
    found, (keys, values) = block(tokens, condition, positions=positions)
    torch.testing.assert_close(found, slow(block, tokens, condition, bias, 1.0))
    assert keys.shape[-1] == 35
    assert values.shape[-1] == 32


def test_a_fresh_geometric_block_is_the_block_without_positions_and_can_leave_it():
    torch.manual_seed(0)
    plain, geometric = AdaLNBlock(64).double(), AdaLNBlock(64, geometric=3).double()
    missing = geometric.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing == ["query_positions.weight", "query_positions.bias"]
    tokens, condition, positions = random(2, 6, 64), random(2, 1, 64), random(6, 3)
    found, _ = geometric(tokens, condition, positions=positions)
    torch.testing.assert_close(found, plain(tokens, condition)[0])
    found.square().sum().backward()
    assert geometric.query_positions is not None
    gradient = geometric.query_positions.weight.grad
    assert gradient is not None
    assert gradient.abs().min() > 0


def test_a_geometric_block_asks_for_positions():
    with pytest.raises(ValueError, match="needs the positions"):
        AdaLNBlock(64, geometric=2).double()(random(1, 3, 64), random(1, 1, 64))


@pytest.mark.parametrize(("width", "heads"), [(68, None), (68, 3)])
def test_a_width_that_its_heads_do_not_divide_is_refused(width: int, heads: int | None):
    with pytest.raises(ValueError, match="not a multiple"):
        AdaLNBlock(width, heads)
