"""A whole policy whose cameras may be missing."""

from dataclasses import replace

import pytest
import torch
from tests.policy.policies import SMALL, small_spec
from torch import Tensor

from loopdit.policy.looped_policy import LoopedPolicy


def policy(encoder: str, history: int) -> LoopedPolicy:
    torch.manual_seed(0)
    config = replace(SMALL, encoder=encoder, history=history, optional_cameras=True)
    made = LoopedPolicy(small_spec(cameras=2), config)
    with torch.no_grad():  # fresh modulations are zero, which would hide what they carry
        for parameter in made.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return made


def observed(history: int) -> dict[str, Tensor]:
    """Two observations, the first without its second camera."""
    generator = torch.Generator().manual_seed(1)
    steps = () if history == 1 else (history,)
    size = (2, *steps, 16, 16, 3)
    frames = torch.randint(0, 256, (2, *size), dtype=torch.uint8, generator=generator)
    return {
        "images.camera0": frames[0],
        "images.camera1": frames[1],
        "proprio": torch.randn(2, *steps, 3, generator=generator),
        "available": torch.tensor([[True, False], [True, True]]),
    }


@pytest.mark.parametrize("history", [1, 2])
@pytest.mark.parametrize("encoder", ["keypoints", "pooled", "patches"])
def test_what_is_in_a_missing_cameras_place_changes_neither_the_chunk_nor_what_is_learned(
    encoder: str, history: int
):
    made, generator = policy(encoder, history), torch.Generator().manual_seed(2)
    noise, actions = torch.randn(2, 2, 4, 2, generator=generator).unbind()
    draws = made.draw(2, generator)
    found: list[list[Tensor]] = []
    for content in (0, 7, 255):
        given = observed(history)
        given["images.camera1"][0] = content
        made.zero_grad()
        chunk = made.act(given, noise, loops=2, steps=3)
        losses = made.losses(given, actions, torch.ones(2, 4, dtype=torch.bool), draws)
        losses.objective.mean().backward()
        gradients = [p.grad.clone() for p in made.parameters() if p.grad is not None]
        found.append([chunk, losses.error, *gradients])
    assert len(found[0]) > 10
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))
    # Where the camera is there, it is seen.
    spoilt = observed(history)
    spoilt["images.camera1"][1] = 255
    assert not torch.equal(made.act(spoilt, noise, loops=2, steps=3)[1], found[0][0][1])
