import numpy as np
import pytest
import torch
from tests.policy.encoders.graphs import through_onnx
from torch import Tensor, nn

from loopdit.errors import ConfigError
from loopdit.policy.encoders.images import make_encoder
from loopdit.policy.encoders.patches import PatchEncoder
from loopdit.policy.encoders.pooled import PooledEncoder

OWN = ("keypoints", "pooled", "pooled:3", "patches", "patches:8")
TOKENS = {"keypoints": 4, "pooled": 4, "pooled:3": 9, "patches": 16, "patches:8": 64}


def frames(count: int, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 2 * torch.rand(count, 3, size, size, generator=generator) - 1


@pytest.mark.parametrize("kind", OWN)
@pytest.mark.parametrize("size", [64, 96])
def test_an_encoder_makes_as_many_tokens_as_it_says_of_each_frame_by_itself(kind: str, size: int):
    torch.manual_seed(0)
    encoder = make_encoder(kind, 32, size)
    given = frames(3, size)
    together = encoder(given)
    assert encoder.tokens == TOKENS[kind] * (9 / 4 if size == 96 and kind == "patches:8" else 1)
    assert together.shape == (3, encoder.tokens, 32)
    alone = torch.cat([encoder(frame[None]) for frame in given])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", OWN)
def test_making_tokens_draws_no_random_number_and_changes_no_state(kind: str):
    """Training with one seed is one run, whatever the encoder."""
    encoder = make_encoder(kind, 32, 64).train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    drawn = torch.get_rng_state()
    first, second = encoder(frames(2, 64)), encoder(frames(2, 64))
    assert torch.equal(first, second)
    assert torch.equal(drawn, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_patches_are_the_linear_map_of_each_patch_and_its_position_row_by_row():
    torch.manual_seed(0)
    encoder = PatchEncoder(32, 16, patch=4)
    given = frames(1, 16)
    kernel, bias = encoder.embed.weight.flatten(1), encoder.embed.bias  # (32, 3 * 4 * 4), (32,)
    assert bias is not None
    rows: list[Tensor] = []
    for y in range(0, 16, 4):
        for x in range(0, 16, 4):
            rows.append(kernel @ given[0, :, y : y + 4, x : x + 4].flatten() + bias)
    written_out = torch.stack(rows) + encoder.position
    torch.testing.assert_close(encoder(given)[0], written_out, rtol=1e-5, atol=1e-5)


def test_a_pooled_token_is_the_mean_of_its_cell_of_the_feature_map():
    torch.manual_seed(0)
    encoder = PooledEncoder(32, 64, grid=2)
    given = frames(1, 64)
    features = encoder.features(given)[0]  # (C, 8, 8)
    for token, (y, x) in enumerate([(0, 0), (0, 4), (4, 0), (4, 4)]):
        mean = features[:, y : y + 4, x : x + 4].mean((1, 2))
        expected = encoder.project(mean) + encoder.position[token]
        torch.testing.assert_close(encoder(given)[0, token], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["pooled", "patches"])
def test_a_picture_and_its_mirror_image_are_told_apart_where_tokens_are_mixed(kind: str):
    """By the sum of their tokens through a nonlinearity, as attention does: without learned
    positions the tokens of a mirror image of single-coloured patches are the same set."""
    torch.manual_seed(0)
    encoder = make_encoder(kind, 32, 64)
    halves = torch.full((1, 3, 64, 64), -1.0)
    halves[..., 32:] = 1.0
    mirrored = halves.flip(-1)

    def mixed(given: Tensor) -> Tensor:
        return nn.functional.silu(encoder(given)).sum(1)

    assert (mixed(halves) - mixed(mirrored)).abs().max() > 1e-4


@pytest.mark.parametrize("kind", OWN)
def test_every_parameter_learns(kind: str):
    torch.manual_seed(0)
    encoder = make_encoder(kind, 32, 64)
    encoder(frames(4, 64)).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.system
@pytest.mark.parametrize("kind", ["pooled", "pooled:3", "patches"])
def test_an_exported_encoder_makes_the_same_tokens(kind: str):
    torch.manual_seed(0)
    encoder = make_encoder(kind, 32, 64)
    given = frames(3, 64)
    found = through_onnx(encoder, frames(2, 64), given)
    np.testing.assert_allclose(found, encoder(given).detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("keypoint", r"policy.encoder=keypoint is not known. .* keypoints, pooled, patches"),
        ("keypoints:4", r"policy.encoder=keypoints:4 is not known"),
        ("pretrained", r"policy.encoder=pretrained is not known"),
        ("pooled:no", r"'no' is not a whole number above 0"),
        ("pooled:0", r"'0' is not a whole number above 0"),
        ("pooled:9", r"9 x 9 cells of a feature map of 8 x 8, at frames of 64 pixels. Use 1 to 8"),
        ("patches:24", r"patches:24 does not divide frames of 64 pixels. Use one of: 4, 8, 16, 32"),
        ("patches:128", r"patches:128 does not divide frames of 64 pixels"),
    ],
)
def test_what_cannot_be_made_is_named_with_what_can(kind: str, told: str):
    with pytest.raises(ConfigError, match=told):
        make_encoder(kind, 32, 64)
