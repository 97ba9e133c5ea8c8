"""The tokens that a manifest names, against those that the policy computes."""

from dataclasses import replace

import pytest
import torch
from tests.policy.policies import SMALL, small_spec

from loopdit.deploy.bundle.bundle import Bundle
from loopdit.deploy.export.token_layout import token_layout
from loopdit.policy.looped_policy import LoopedPolicy


@pytest.mark.parametrize("history", [1, 3])
@pytest.mark.parametrize("instruction", ["none", "words"])
def test_the_layouts_tokens_are_those_that_keys_are_of(history: int, instruction: str):
    told = [] if instruction == "none" else ["lift", "stack"]
    config = replace(SMALL, history=history, instruction=instruction, instructions=told)
    policy = LoopedPolicy(small_spec(cameras=2), config).eval()
    layout = token_layout(policy)
    seen = {
        tensor.name: torch.zeros((1, *tensor.shape), dtype=getattr(torch, tensor.dtype))
        for tensor in policy.encode_inputs
    }
    context = policy.encode(seen, 1)
    assert sum(part["tokens"] for part in layout["observation"]) == context.keys.shape[3]
    named = [part["of"] for part in layout["observation"]]
    cameras = [camera.name for camera in policy.spec.cameras]
    assert named == [*cameras, "proprio"] * history + ["instruction"] * bool(told)
    ages = [part["steps_ago"] for part in layout["observation"] if "steps_ago" in part]
    assert ages == sorted(ages, reverse=True)
    assert ages[-1] == 0
    action = layout["action"]
    assert action["tokens"] * action["actions_per_token"] == policy.horizon


def test_a_bundle_says_its_layout(tiny_bundle: Bundle, tiny_policy: LoopedPolicy):
    assert tiny_bundle.manifest.layout == token_layout(tiny_policy)
