import pytest
import torch
from tests.policy.loops.stacks import WIDTH, random, random_stack, units

from loopdit.policy.loops.config import LoopConfig
from loopdit.policy.loops.exit_gates import ExitGate, mix_exits


def gate(per_token: bool, bias: float | None = None) -> ExitGate:
    made = ExitGate(WIDTH, per_token).double().requires_grad_(False)
    torch.nn.init.normal_(made.logit.weight, generator=torch.Generator().manual_seed(0))
    if bias is not None:
        torch.nn.init.zeros_(made.logit.weight)
        torch.nn.init.constant_(made.logit.bias, bias)
    return made


@pytest.mark.parametrize("per_token", [False, True])
def test_exits_are_the_mean_over_where_a_token_could_have_exited(per_token: bool):
    """Written out for each token: exit at loop l with the probability of not having before."""
    exits = gate(per_token)
    states = [random(2, 5, WIDTH, seed=seed) for seed in range(4)]
    mixed, used = mix_exits(states, exits)
    for b in range(2):
        for n in range(5):
            inside, mean, loops = 1.0, torch.zeros(WIDTH, dtype=torch.float64), 0.0
            for loop, state in enumerate(states, 1):
                read = state[b, n] if per_token else state[b].mean(0)
                logit = float(exits.logit.weight[0] @ read + exits.logit.bias)
                halting = 1.0 if loop == 4 else 1 / (1 + torch.tensor(-logit).exp().item())
                mean += inside * halting * state[b, n].detach()
                loops += inside * halting * loop
                inside *= 1 - halting
            torch.testing.assert_close(mixed[b, n], mean, rtol=1e-5, atol=1e-5)
            assert used[b, n].item() == pytest.approx(loops, rel=1e-5)


def test_a_global_gate_lets_all_tokens_of_a_sample_exit_alike():
    states = [random(2, 5, WIDTH, seed=seed) for seed in range(4)]
    _, of_samples = mix_exits(states, gate(per_token=False))
    _, of_tokens = mix_exits(states, gate(per_token=True))
    assert of_samples.std(1).max() == 0
    assert of_samples.std(0).min() > 0
    assert of_tokens.std(1).min() > 0


@pytest.mark.parametrize(("bias", "loop"), [(-1000.0, 4), (1000.0, 1)])
def test_gates_that_never_or_always_exit_give_the_last_or_the_first_state(bias: float, loop: int):
    states = [random(2, 5, WIDTH, seed=seed) for seed in range(4)]
    mixed, used = mix_exits(states, gate(True, bias))
    assert mixed.equal(states[loop - 1])
    assert used.equal(torch.full((2, 5), loop, dtype=torch.float64))


def test_the_ponder_cost_is_the_weighted_mean_of_the_loops_and_pushes_exits_forward():
    stack = random_stack(LoopConfig(exits="token", ponder=0.5))
    tokens, condition = random(2, 5, WIDTH), random(2, 1, WIDTH)
    output = stack(tokens, condition)
    assert 1 < output.loops_used.min() < output.loops_used.max() < 4
    torch.testing.assert_close(output.ponder, 0.5 * output.loops_used.mean())
    output.ponder.backward()
    for unit in units(stack):
        assert unit.exit_gate is not None
        gradient = unit.exit_gate.logit.bias.grad
        assert gradient is not None
        assert gradient < 0  # descent raises the bias, and with it the probability to exit


def test_loops_used_of_blocks_that_exit_by_themselves_are_their_mean():
    stack = random_stack(LoopConfig(exits="token"), blocks=2)
    first, second = (unit.exit_gate for unit in units(stack))
    assert first is not None
    assert second is not None
    for exits, bias in ((first, 1000.0), (second, -1000.0)):
        torch.nn.init.constant_(exits.logit.bias, bias)
    used = stack(random(2, 5, WIDTH), random(2, 1, WIDTH)).loops_used
    assert used.equal(torch.full((2, 5), 2.5, dtype=torch.float64))
