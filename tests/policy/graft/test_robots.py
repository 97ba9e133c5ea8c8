from dataclasses import replace

import pytest
import torch
from tests.policy.graft.grafts import moved, tiny_graft, video
from torch import Tensor

from loopdit.errors import ConfigError
from loopdit.policy.graft.config import GraftConfig
from loopdit.policy.graft.decoders.config import DecoderConfig
from loopdit.policy.graft.decoders.decoder import make_decoder
from loopdit.policy.graft.features import Features
from loopdit.policy.graft.robots import robot_of_tokens, token_mask

TEXT = 8


def hidden(topology: str, latents: Tensor) -> tuple[Tensor, Tensor]:
    """Of the left robot's video tokens and of the right one's, at all three loops."""
    _, text, levels = video()
    grafted = moved(tiny_graft(loops=3, robots=2, topology=topology))
    with torch.no_grad():
        found = grafted(latents, text, levels).hidden.unflatten(1, (3, 4, 6))
    return found[:, :, :, :3], found[:, :, :, 3:]


def with_another_right_half(latents: Tensor) -> Tensor:
    """Latents (B, 3, 16, 8, 12) with other numbers where the right robot is."""
    changed = latents.clone()
    changed[..., 6:] = torch.randn(
        changed[..., 6:].shape, generator=torch.Generator().manual_seed(5)
    )
    return changed


def test_a_mask_joins_what_the_topology_joins():
    video_tokens = robot_of_tokens(frames=1, rows=1, columns=4, robots=2)
    assert video_tokens.tolist() == [0, 0, 1, 1]
    left, right = [1, 1, 0, 0], [0, 0, 1, 1]
    expected = [[1, *left], [1, *left], [1, *right], [1, *right]]
    hub = token_mask("hub", 2, 1, video_tokens).int().tolist()
    assert hub == [[1, 1, 1, 1, 1], *expected]
    assert token_mask("isolated", 2, 1, video_tokens).int().tolist() == [[1, 0, 0, 0, 0], *expected]
    assert token_mask("dense", 2, 1, video_tokens).all()


def test_isolated_robots_see_nothing_of_each_other_at_any_depth():
    latents = video()[0]
    left, right = hidden("isolated", latents)
    other_left, other_right = hidden("isolated", with_another_right_half(latents))
    assert torch.equal(left, other_left)
    assert not torch.allclose(right, other_right)


def test_robots_at_a_hub_learn_of_each_other_through_the_text():
    latents = video()[0]
    left, _ = hidden("hub", latents)
    other, _ = hidden("hub", with_another_right_half(latents))
    isolated, _ = hidden("isolated", latents)
    through_text = (left - other).abs().max()
    dense = [hidden("dense", x)[0] for x in (latents, with_another_right_half(latents))]
    directly = (dense[0] - dense[1]).abs().max()
    assert 0 < through_text < 0.3 * directly
    assert not torch.equal(left, isolated)


def test_a_dense_topology_is_that_of_one_robot_to_the_bit():
    latents, text, levels = video()
    one = moved(tiny_graft(loops=2))(latents, text, levels)
    two = moved(tiny_graft(loops=2, robots=2, topology="dense"))(latents, text, levels)
    assert torch.equal(one.sample, two.sample)


@pytest.mark.parametrize("objective", ["flow", "regression"])
def test_a_robots_actions_are_read_from_its_own_video_alone(objective: str):
    torch.manual_seed(0)
    robot = robot_of_tokens(frames=1, rows=2, columns=4, robots=2)
    config = DecoderConfig(width=32, objective=objective, gripper="regress")
    decoder = make_decoder(config, 16, 16, 4, 6, robot=robot)
    tokens, noise = torch.randn(2, 8, 16), torch.randn(2, 4, 6)
    changed = torch.where((robot == 1)[:, None], torch.randn(2, 8, 16), tokens)
    video_says = torch.zeros(2, 1, 16, 2, 2)
    other_noise = torch.cat([noise[..., :3], torch.randn(2, 4, 3)], dim=-1)
    one = decoder.sample(Features(tokens, video_says), noise)
    two = decoder.sample(Features(changed, video_says), other_noise)
    assert torch.equal(one[..., :3], two[..., :3])
    assert not torch.isclose(one[..., 3:], two[..., 3:]).any()


def test_what_robots_cannot_share_is_refused():
    with pytest.raises(ConfigError, match=r"graft\.robots=4 do not share 6 columns"):
        tiny_graft(robots=4)(*video())
    with pytest.raises(ConfigError, match="an action of 7 numbers is not shared equally"):
        make_decoder(DecoderConfig(), 16, 16, 4, 7, robot=torch.tensor([0, 1]))
    with pytest.raises(ConfigError, match="topology=isolated does nothing without robots=2"):
        GraftConfig(topology="isolated")
    with pytest.raises(ConfigError, match="halting=token and topology=hub exclude each other"):
        GraftConfig(robots=2, halting="token")
    assert not replace(GraftConfig(robots=2), topology="dense").keeps_robots_apart
