from typing import Any

import pytest
import torch
from tests.policy.loops.stacks import (
    WIDTH,
    halting_gates,
    looped_blocks,
    random,
    random_stack,
    units,
)
from torch import Tensor, nn

from loopdit.policy.attention import attend
from loopdit.policy.loops.config import LoopConfig
from loopdit.policy.loops.looped_stack import LoopedStack

TOKENS = 12


def halting_stack(steepness: float, bias: float, **options: Any) -> LoopedStack:
    """Gates that read the state with this steepness: steep ones give exactly 0 or 1."""
    stack = random_stack(LoopConfig(init="paper", halting="token", **options), geometric=2).eval()
    generator = torch.Generator().manual_seed(5)
    for gate in halting_gates(stack):
        nn.init.normal_(gate.logit.weight, std=steepness, generator=generator)
        nn.init.constant_(gate.logit.bias, bias)
    return stack.requires_grad_(False)


def surroundings(batch: int) -> dict[str, Tensor]:
    allowed = random(TOKENS, TOKENS, seed=4) > -0.5
    return {
        "tokens": random(batch, TOKENS, WIDTH),
        "condition": random(batch, TOKENS, WIDTH, seed=3),
        "bias": allowed,
        "positions": random(TOKENS, 2, seed=6),
    }


def slow(
    stack: LoopedStack, tokens: Tensor, condition: Tensor, bias: Tensor, positions: Tensor
) -> tuple[Tensor, Tensor]:
    """Everything computed in every loop, and thrown away where a token has halted."""
    used: list[Tensor] = []
    for unit in units(stack):
        kept: dict[object, tuple[Tensor, Tensor]] = {}
        chance = torch.zeros(tokens.shape[:2], dtype=tokens.dtype)
        count = torch.zeros_like(chance)
        start, blocks = tokens, [b for b in looped_blocks(stack) if b in unit.blocks]
        for loop in range(stack.config.loops):
            going = (chance < stack.config.halt_at)[..., None]
            new = tokens if unit.injection is None else unit.injection(tokens, start)
            for looped in blocks:
                modulation = looped.block.modulate(condition)
                entered = new + looped.loop_embedding[loop]
                q, k, v = looped.block.project(entered, modulation, positions)
                old_k, old_v = kept.get(looped, (k, v))
                k, v = (torch.where(going[:, None], a, b) for a, b in ((k, old_k), (v, old_v)))
                kept[looped] = k, v
                made = looped.block.update(entered, modulation, attend(q, k, v, bias))
                gate = looped.gate(new, loop, new.dtype)
                new = gate * made + (1 - gate) * new
            tokens = torch.where(going, new, tokens)
            count += going[..., 0]
            assert unit.halting_gate is not None
            chance = chance + (1 - chance) * unit.halting_gate(tokens)[..., 0]
        used.append(count)
    return tokens, torch.stack(used).mean(0)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("scope", ["block", "stack"])
@pytest.mark.parametrize("injection", [False, True])
def test_skipping_computes_what_computing_and_discarding_does(
    batch: int, scope: str, injection: bool
):
    stack = halting_stack(0.1, -0.5, scope=scope, injection=injection)
    given = surroundings(batch)
    output = stack(**given)
    tokens, used = slow(stack, **given)
    torch.testing.assert_close(output.tokens, tokens)
    assert output.loops_used.equal(used)
    assert len(used.unique()) >= 3  # they do halt at different depths


@pytest.mark.parametrize("scope", ["block", "stack"])
def test_trained_and_served_forms_agree_where_each_token_surely_halts_or_does_not(scope: str):
    stack = halting_stack(1e6, 0.0, scope=scope)
    given = surroundings(3)
    served, trained = stack(**given), stack.train()(**given)
    torch.testing.assert_close(trained.tokens, served.tokens)
    assert trained.loops_used.equal(served.loops_used)
    assert len(served.loops_used.unique()) >= 3


@pytest.mark.parametrize(("bias", "loops"), [(-1000.0, 4), (1000.0, 1)])
@pytest.mark.parametrize("train", [False, True])
def test_where_none_halts_all_loops_are_run_and_where_all_do_one_is(
    bias: float, loops: int, train: bool
):
    stack = halting_stack(0.0, bias)
    given = surroundings(2)
    plain = random_stack(LoopConfig(init="paper"), geometric=2)
    plain.load_state_dict({k: v for k, v in stack.state_dict().items() if "halting" not in k})
    output = stack.train(train)(**given)
    torch.testing.assert_close(output.tokens, plain(**given, loops=loops).tokens)
    assert output.loops_used.equal(torch.full((2, TOKENS), loops, dtype=torch.float64))


def test_only_the_loops_that_are_reported_are_computed():
    stack = halting_stack(0.1, -0.5, scope="stack")
    computed: list[int] = []

    def count(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        computed.append(given[0].shape[1])

    for looped in looped_blocks(stack):
        looped.block.queries_keys_values.register_forward_pre_hook(count)
        looped.block.feedforward_in.register_forward_pre_hook(count)
    used = stack(**surroundings(1)).loops_used.sum().item()
    assert sum(computed) == 2 * 2 * used  # two projections in two blocks
    assert used < 4 * TOKENS


def test_a_sample_halts_the_same_in_any_batch():
    stack = halting_stack(0.1, -0.5)
    given = surroundings(3)
    together = stack(**given)
    for b in range(3):
        own = {name: given[name][b : b + 1] for name in ("tokens", "condition")}
        alone = stack(**(given | own))
        torch.testing.assert_close(alone.tokens[0], together.tokens[b])
        assert alone.loops_used[0].equal(together.loops_used[b])


def test_a_halted_token_keeps_its_state_and_is_still_attended_to():
    stack = halting_stack(0.1, -0.5, scope="stack")
    given = surroundings(1) | {"bias": torch.ones(TOKENS, TOKENS, dtype=torch.bool)}
    output = stack(**given, keep_states=True)
    assert output.states is not None
    halted = (output.loops_used[0] == 2).nonzero()[0, 0]
    assert output.states[2][0, halted].equal(output.tokens[0, halted])
    assert not output.states[1][0, halted].equal(output.tokens[0, halted])
    going = output.loops_used[0] == 4
    hidden = given["bias"].clone()
    hidden[:, halted] = False
    without = stack(**(given | {"bias": hidden})).tokens
    assert not without[0, going].allclose(output.tokens[0, going])


def test_halting_learns_to_halt_from_its_ponder_cost_and_to_go_on_from_its_loss():
    stack = halting_stack(0.1, -0.5, ponder=1.0).train().requires_grad_()
    given = surroundings(2)
    bias = halting_gates(stack)[0].logit.bias
    (of_ponder,) = torch.autograd.grad(stack(**given).ponder, bias)
    assert of_ponder < 0  # descent raises the bias
    # A finite difference says what the loss wants.
    target = random(2, TOKENS, WIDTH, seed=9)
    (of_loss,) = torch.autograd.grad((stack(**given).tokens - target).square().sum(), bias)
    with torch.no_grad():
        losses: list[Tensor] = []
        for change in (1e-5, -2e-5):
            bias += change
            losses.append((stack(**given).tokens - target).square().sum())
    torch.testing.assert_close(of_loss[0], (losses[0] - losses[1]) / 2e-5, rtol=1e-5, atol=1e-5)


def test_a_higher_threshold_halts_later():
    given = surroundings(1)
    used = [
        stack(**given).loops_used.mean().item()
        for stack in (halting_stack(0.1, -0.5, halt_at=at) for at in (0.3, 0.5, 0.9))
    ]
    assert used[0] < used[1] < used[2]
