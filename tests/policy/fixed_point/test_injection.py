"""What input injection and the Jacobian penalty do to the loops of a real block."""

import pytest
import torch
from torch import Tensor, nn

from loopdit.policy.block import AdaLNBlock
from loopdit.policy.fixed_point.injection import InputInjection, injected
from loopdit.policy.fixed_point.jacobian import jacobian_penalty, spectral_norm
from loopdit.policy.fixed_point.step import Step, at_loop

WIDTH = 32
LOOPS = 4


def block_step(block: AdaLNBlock) -> Step:
    condition = torch.zeros(1, 1, WIDTH)
    return lambda state, loop: block(state, condition)[0]


def run(step: Step, state: Tensor, loops: int = LOOPS) -> Tensor:
    for loop in range(loops):
        state = step(state, loop)
    return state


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("carry", [0.01, 0.5, 0.9])
def test_the_first_loop_is_that_of_a_model_without_it_to_the_bit(carry: float):
    torch.manual_seed(0)
    block = AdaLNBlock(WIDTH).requires_grad_(False)
    tokens = torch.randn(2, 5, WIDTH, generator=seeded(1))
    step = block_step(block)
    mixed = injected(step, InputInjection(WIDTH, carry).requires_grad_(False), tokens)
    assert torch.equal(run(mixed, tokens, 1), run(step, tokens, 1))
    assert not torch.allclose(run(mixed, tokens, 2), run(step, tokens, 2), atol=1e-3)


def test_a_difference_of_states_shrinks_by_the_carry_of_its_channel():
    injection = InputInjection(WIDTH, 0.3)
    start, one, other = torch.randn(3, 2, 5, WIDTH, generator=seeded(0))
    difference = injection(one, start) - injection(other, start)
    torch.testing.assert_close(difference, 0.3 * (one - other))


def test_the_fixed_point_depends_on_the_input_and_not_on_where_the_loops_begin():
    """A loop that contracts by itself: without injection it forgets what it was given."""

    def step(state: Tensor, loop: int) -> Tensor:
        return state + 0.5 * (1 - state)

    one, other = torch.randn(2, 1, 3, WIDTH, generator=seeded(0))
    forgotten = run(step, one, 60), run(step, other, 60)
    torch.testing.assert_close(*forgotten)
    injection = InputInjection(WIDTH, 0.5).requires_grad_(False)
    kept = injected(step, injection, one)
    torch.testing.assert_close(run(kept, one, 60), run(kept, other, 60))
    elsewhere = run(injected(step, injection, other), other, 60)
    assert (run(kept, one, 60) - elsewhere).abs().mean() > 0.1


@pytest.mark.parametrize("carry", [0.0, 1.0, -1.0])
def test_a_carry_that_keeps_all_or_nothing_is_refused(carry: float):
    with pytest.raises(ValueError, match=f"carry={carry}"):
        InputInjection(WIDTH, carry)


def train(injecting: bool, penalty: float, steps: int = 500) -> tuple[float, float]:
    """Four loops learn the tokens' mean in half of the channels and absolute values in the rest:
    the share of the target's variance that is left on new tokens, and the median over them of the
    last loop's local Lipschitz constant."""
    torch.manual_seed(0)
    block = AdaLNBlock(WIDTH)
    injection = InputInjection(WIDTH)
    out = nn.Linear(WIDTH, WIDTH)
    modules = nn.ModuleList([block, out, injection])
    optimizer = torch.optim.AdamW(modules.parameters(), lr=3e-3)
    generator = seeded(1)

    def task(count: int) -> tuple[Tensor, Tensor, Step]:
        tokens = torch.randn(count, 6, WIDTH, generator=generator)
        means = tokens.mean(dim=1, keepdim=True).expand_as(tokens)
        target = torch.where(torch.arange(WIDTH) < WIDTH // 2, means, tokens.abs() - 0.8)
        step = block_step(block)
        return tokens, target, injected(step, injection, tokens) if injecting else step

    for _ in range(steps):
        tokens, target, step = task(32)
        state = run(step, tokens)
        loss = (out(state) - target).square().mean()
        if penalty:
            last = at_loop(step, LOOPS - 1)
            loss = loss + penalty * jacobian_penalty(last, state, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    modules.requires_grad_(False)
    tokens, target, step = task(64)
    state = run(step, tokens)
    left = (out(state) - target).square().mean() / target.var()
    norms = spectral_norm(at_loop(step, LOOPS - 1), state, generator)
    return float(left), float(norms.median())


@pytest.mark.system
def test_training_with_injection_and_the_penalty_makes_the_loop_contract():
    left, norm = train(injecting=True, penalty=0.1)
    left_without, norm_without = train(injecting=False, penalty=0.0)
    assert norm < 1 < norm_without, (norm, norm_without)
    assert left < left_without + 0.1, (left, left_without)  # and it learns as well
