from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.policy.policies import SMALL, small_spec

from loopdit.deploy.backends import load_backend
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.policy.checkpoint import load_policy, save_checkpoint
from loopdit.policy.looped_policy import LoopedPolicy

VERSION_1 = Path(__file__).parents[1] / "goldens" / "bundle_v1"
STEPS = 3
SPEC = small_spec(cameras=2)


@pytest.fixture
def policy() -> LoopedPolicy:
    torch.manual_seed(0)
    made = LoopedPolicy(SPEC, replace(SMALL, history=STEPS)).eval()
    with torch.no_grad():  # fresh modulations are zero, which would hide the order of things
        for parameter in made.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    made.normalizer.get_buffer("proprio_mean").copy_(torch.tensor([1.0, 2.0, 3.0]))
    return made.requires_grad_(False)


def observed(batch: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    size = (batch, STEPS, 16, 16, 3)
    frames = torch.randint(0, 256, (2, *size), dtype=torch.uint8, generator=generator)
    proprio = torch.randn(batch, STEPS, 3, generator=generator)
    return {"images.camera0": frames[0], "images.camera1": frames[1], "proprio": proprio}


def test_without_history_a_policy_is_what_it_was_before_there_was_any():
    """A spec of old says nothing of history: same parameters, and the chunk of its export."""
    bundle = Bundle.open(VERSION_1)
    assert bundle.spec.history == 1
    load_backend(bundle, "torch")  # raises where it computes another chunk
    assert "history_position" not in dict(load_policy(VERSION_1).model.named_parameters())


def test_each_past_step_becomes_the_tokens_of_a_single_one_and_its_place_in_time(
    policy: LoopedPolicy,
):
    """Written out: one step at a time through the same encoders, then the blocks."""
    given, model = observed(), policy.model
    assert model.history_position is not None
    tokens: list[torch.Tensor] = []
    for step in range(STEPS):
        parts = [
            encoder(policy.normalizer.frame(given[f"images.camera{i}"][:, step]))
            for i, encoder in enumerate(model.cameras)
        ]
        proprio = (given["proprio"][:, step] - torch.tensor([1.0, 2.0, 3.0])) / 1.0
        one = torch.cat([*parts, model.proprio(proprio)[:, None]], 1) + model.observation_position
        tokens.append(one + model.history_position[step])
    stream = torch.cat(tokens, 1)
    condition = model.condition(torch.ones(1))
    expected: list[torch.Tensor] = []
    for loop in range(2):
        stream = stream + model.loop_embedding[loop]
        for block in model.blocks:
            stream, (keys, _) = block(stream, condition)
            expected.append(keys)
    found = policy.encode(given, loops=2).keys
    torch.testing.assert_close(found, torch.stack(expected))


def test_the_order_of_the_past_matters(policy: LoopedPolicy):
    given, noise = observed(), torch.zeros(2, 4, 2)
    swapped = {name: value[:, [1, 0, 2]] for name, value in given.items()}
    assert not torch.allclose(policy.act(given, noise, 2), policy.act(swapped, noise, 2))


def test_what_is_hidden_has_no_influence_and_what_is_seen_has(policy: LoopedPolicy):
    draws = policy.draw(2, torch.Generator().manual_seed(0))
    actions, valid = torch.rand(2, 4, 2), torch.ones(2, 4, dtype=torch.bool)

    def loss(given: dict[str, torch.Tensor], seen: torch.Tensor | None) -> list[float]:
        return policy.losses(given, actions, valid, draws, seen=seen).error.tolist()

    given = observed()
    other = {name: value.clone() for name, value in given.items()}
    for value in other.values():
        value[:, 0] = 7
    all_seen = torch.ones(2, STEPS, dtype=torch.bool)
    hidden = torch.tensor([[False, True, True]] * 2)
    assert loss(given, hidden) == loss(other, hidden)
    assert loss(given, all_seen) != loss(other, all_seen)
    assert loss(given, all_seen) == loss(given, None)
    assert loss(given, hidden) != loss(given, None)


def test_a_checkpoint_says_how_much_history_its_policy_is_given(
    policy: LoopedPolicy, tmp_path: Path
):
    save_checkpoint(tmp_path, policy, {})
    loaded = load_policy(tmp_path)
    assert loaded.spec == SPEC.with_history(STEPS)
    noise = torch.zeros(2, 4, 2)
    np.testing.assert_array_equal(
        loaded.act(observed(), noise, 2).numpy(), policy.act(observed(), noise, 2).numpy()
    )
