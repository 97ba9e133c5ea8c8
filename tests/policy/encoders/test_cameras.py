import numpy as np
import pytest
import torch
from torch import Tensor, nn

from loopdit.policy.encoders.cameras import drop_cameras, encode_cameras
from loopdit.policy.encoders.images import make_encoder

KINDS = ("keypoints", "pooled", "patches")


def encoders(kind: str) -> nn.ModuleList:
    torch.manual_seed(0)
    return nn.ModuleList(make_encoder(kind, 32, size) for size in (16, 32))


def frames(count: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [2 * torch.rand(count, 3, size, size, generator=generator) - 1 for size in (16, 32)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("content", [0.0, 1.0, 1e30, torch.inf, torch.nan])
def test_nothing_in_a_missing_cameras_place_reaches_tokens_or_gradients(kind: str, content: float):
    available = torch.tensor([[True, True], [False, True], [True, False]])
    found: list[list[Tensor]] = []
    for put in (None, content):
        given, made = frames(3), encoders(kind)
        if put is not None:
            given[0][1] = put
            given[1][2] = put
        tokens, mask = encode_cameras(made, given, available)
        tokens.square().sum().backward()
        found.append([tokens, mask, *[p.grad for p in made.parameters() if p.grad is not None]])
    assert len(found[0]) > 4
    for clean, spoilt in zip(*found, strict=True):
        assert torch.equal(clean, spoilt)
        assert clean.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_what_attends_by_the_mask_sees_a_missing_camera_as_if_it_had_never_been(kind: str):
    """Attention over the masked tokens against attention over the other camera's tokens alone."""
    made, given = encoders(kind), frames(2)
    tokens, mask = encode_cameras(made, given, torch.tensor([[True, False], [True, False]]))
    query = torch.randn(2, 1, 32, generator=torch.Generator().manual_seed(3))
    attend = nn.functional.scaled_dot_product_attention
    masked = attend(query, tokens, tokens, attn_mask=mask[:, None])
    alone = next(iter(made))(given[0])
    torch.testing.assert_close(masked, attend(query, alone, alone))


def test_with_all_cameras_the_tokens_are_the_encoders_own():
    made, given = encoders("keypoints"), frames(2)
    expected = torch.cat([e(f) for e, f in zip(made, given, strict=True)], 1)
    for available in (None, torch.ones(2, 2, dtype=torch.bool)):
        tokens, mask = encode_cameras(made, given, available)
        assert torch.equal(tokens, expected)
        assert mask.shape == (2, 8)
        assert mask.all()


def test_the_mask_has_each_cameras_own_number_of_tokens():
    torch.manual_seed(0)
    made = [make_encoder("pooled:1", 32, 16), make_encoder("patches", 32, 32)]
    _, mask = encode_cameras(made, frames(2), torch.tensor([[True, False], [False, True]]))
    assert mask.tolist() == [[True] + [False] * 16, [False] + [True] * 16]


def test_cameras_are_hidden_as_often_as_asked_and_never_the_last_one():
    """n = 100,000 windows of two cameras: both drawn hidden 0.09, so each is hidden with 0.3 less
    half of that; six standard deviations are 0.009."""
    generator = torch.Generator().manual_seed(0)
    available = torch.ones(100_000, 2, dtype=torch.bool)
    chances = torch.rand(100_000, 2, generator=generator)
    left = drop_cameras(available, chances, 0.3)
    assert left.any(1).all()
    hidden = (~left).float().mean(0).numpy()
    np.testing.assert_allclose(hidden, [0.3 - 0.09 / 2] * 2, atol=0.009)


def test_a_camera_that_was_never_there_is_neither_found_nor_counted():
    chances = torch.tensor([[0.1, 0.9], [0.1, 0.9], [0.1, 0.2]])
    available = torch.tensor([[True, False], [False, False], [True, True]])
    assert drop_cameras(available, chances, 0.5).tolist() == [
        [True, False],  # its only camera, although drawn
        [False, False],
        [False, True],  # both drawn: the larger chance stays
    ]


def test_without_dropout_everything_stays_and_with_certainty_one_camera_does():
    chances = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    available = torch.rand(50, 3, generator=torch.Generator().manual_seed(1)) < 0.7
    assert torch.equal(drop_cameras(available, chances, 0.0), available)
    left = drop_cameras(available, chances, 1.0)
    assert torch.equal(left.sum(1), available.any(1).long())
    assert not (left & ~available).any()
