from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from tests.policy.policies import SMALL, small_spec
from torch import Tensor

from loopdit.datasets.spec import COMMITTED
from loopdit.policy.counted_loops import encode_counted, predict_counted
from loopdit.policy.encoders.absent_cameras import AVAILABLE
from loopdit.policy.encoders.vocabulary import INSTRUCTION
from loopdit.policy.looped_policy import LoopedPolicy

# Everything that a loop is given or that is masked, and two blocks in each of three loops.
EVERYTHING = replace(
    SMALL,
    blocks=2,
    max_loops=3,
    history=2,
    injection=True,
    optional_cameras=True,
    in_flight=2,
    instruction="words",
    instructions=["lift the cube", "stack the cubes"],
    action_expert=True,
)


def _eagerly(
    condition: Callable[..., Tensor],
    body: Callable[..., tuple[Tensor, ...]],
    state: tuple[Tensor, ...],
) -> tuple[Tensor, ...]:
    """What `torch.while_loop` means, without compiling it."""
    while condition(*state):
        state = body(*state)
    return state


@pytest.mark.parametrize("loops", [1, 2, 3])
def test_a_counted_pass_is_the_unrolled_one(loops: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "while_loop", _eagerly)
    torch.manual_seed(0)
    policy = LoopedPolicy(small_spec(cameras=2), EVERYTHING).eval()
    model = policy.model
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    batch = 2
    observation = {
        t.name: torch.randint(0, 255, (batch, *t.shape), dtype=torch.uint8)
        if t.is_image
        else torch.randn(batch, *t.shape)
        for t in policy.spec.observations
    }
    observation[COMMITTED][..., -1] = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    observation[AVAILABLE] = torch.tensor([[True, True], [False, True]])
    observation[INSTRUCTION] = torch.from_numpy(
        policy.config.vocabulary.told("words", "stack the cubes")[None].repeat(batch, 0)  # pyright: ignore[reportOptionalMemberAccess] - it is told in words
    )
    inputs = policy.normalized(observation)
    sample, times = torch.randn(batch, policy.horizon, 2), torch.tensor([0.2, 0.7])
    with torch.inference_mode():
        context = model.encode(inputs, loops)
        expected = model.predict(sample, times, context)
        counted = encode_counted(model, inputs, torch.tensor(loops))
        found = predict_counted(model, sample, times, counted, torch.tensor(loops))
        one_less = model.predict(sample, times, model.encode(inputs, loops - 1)) if loops > 1 else 0
    assert counted.keys.shape == context.keys.shape
    for ours, theirs in ((counted.keys, context.keys), (counted.values, context.values)):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert counted.mask is not None
    assert counted.mask.equal(context.mask)  # pyright: ignore[reportArgumentType] - it has one
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert (expected - one_less).abs().max() > 1e-2
