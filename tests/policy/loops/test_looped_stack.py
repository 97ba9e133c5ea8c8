import itertools

import pytest
import torch
from tests.policy.loops.stacks import WIDTH, fresh, looped_blocks, random, random_stack, units
from torch import Tensor, nn

from loopdit.errors import ConfigError
from loopdit.policy.loops.config import LoopConfig
from loopdit.policy.loops.looped_stack import LoopedStack
from loopdit.policy.loops.sharpening import sharpness


def slow(
    stack: LoopedStack, tokens: Tensor, condition: Tensor, loops: int, bias: Tensor | None = None
) -> list[Tensor]:
    """The states from the first tokens on: blocks looped one by one, or all in turn."""
    blocks = looped_blocks(stack)
    together = [blocks] if stack.config.scope == "stack" else [[block] for block in blocks]
    states = [tokens]
    for group in together:
        for loop, looped in itertools.product(range(loops), group):
            beta = sharpness(loop, stack.config.loops, stack.config.sharpest)
            entered = tokens + looped.loop_embedding[loop]
            made, _ = looped.block(entered, condition, bias=bias, sharpness=beta)
            gate = looped.gate(tokens, loop, tokens.dtype)
            tokens = gate * made + (1 - gate) * tokens
            if looped is group[-1]:
                states.append(tokens)
    return states


@pytest.mark.parametrize("loops", [1, 2, 3])
@pytest.mark.parametrize("scope", ["block", "stack"])
def test_loops_go_around_each_block_or_around_all(scope: str, loops: int):
    stack = random_stack(LoopConfig(loops=3, scope=scope, init="paper", sharpest=2.0))
    tokens, condition, bias = random(2, 5, WIDTH), random(2, 5, WIDTH, seed=3), random(5, 5)
    found = stack(tokens, condition, loops, bias, keep_states=True)
    expected = slow(stack, tokens, condition, loops, bias)
    torch.testing.assert_close(found.tokens, expected[-1])
    torch.testing.assert_close(found.states, expected)
    assert found.loops_used.equal(torch.full((2, 5), loops, dtype=torch.float64))
    assert found.ponder == 0


@pytest.mark.parametrize("scope", ["block", "stack"])
@pytest.mark.parametrize("injection", [False, True])
def test_one_loop_of_a_fresh_stack_is_the_plain_blocks_bit_for_bit(scope: str, injection: bool):
    stack = fresh(LoopConfig(scope=scope, injection=injection), blocks=3)
    tokens, condition = random(2, 5, WIDTH).float(), random(2, 1, WIDTH).float()
    plain = tokens
    for looped in looped_blocks(stack):
        plain, _ = looped.block(plain, condition)
    assert stack(tokens, condition, loops=1).tokens.equal(plain)


def test_all_loops_of_a_fresh_stack_stay_near_the_plain_blocks_unlike_the_papers_start():
    tokens, condition = random(2, 5, WIDTH).float(), random(2, 1, WIDTH).float()

    def error(init: str) -> float:
        stack = fresh(LoopConfig(init=init))
        plain = tokens
        for looped in looped_blocks(stack):
            plain, _ = looped.block(plain, condition)
        return ((stack(tokens, condition).tokens - plain).norm() / plain.norm()).item()

    assert error("identity") < 0.005
    assert error("paper") > 0.05


def test_a_shallow_pass_over_the_stack_is_the_beginning_of_a_deep_one():
    stack = random_stack(LoopConfig(scope="stack", sharpest=2.0))
    tokens, condition = random(2, 5, WIDTH), random(2, 1, WIDTH)
    states = stack(tokens, condition, keep_states=True).states
    for loops in (1, 2, 3):
        assert stack(tokens, condition, loops).tokens.equal(states[loops])


def test_a_sharpness_of_one_changes_nothing_bit_for_bit():
    plain, sharp = (fresh(LoopConfig(sharpest=sharpest, init="paper")) for sharpest in (1.0, 3.0))
    tokens, condition = random(2, 5, WIDTH).float(), random(2, 1, WIDTH).float()
    unsharpened = tokens
    for looped, loop in itertools.product(looped_blocks(plain), range(4)):
        made, _ = looped.block(unsharpened + looped.loop_embedding[loop], condition)
        unsharpened = torch.lerp(unsharpened, made, looped.gate(unsharpened, loop))
    assert plain(tokens, condition).tokens.equal(unsharpened)
    assert not sharp(tokens, condition).tokens.allclose(unsharpened)


def test_injection_mixes_the_input_into_the_state_before_a_loop():
    stack = random_stack(LoopConfig(loops=2, scope="stack", init="paper", injection=True))
    injection = units(stack)[0].injection
    assert injection is not None
    start, condition = random(2, 5, WIDTH), random(2, 1, WIDTH)
    state = start
    for loop in range(2):
        state = injection(state, start)
        for looped in looped_blocks(stack):
            state = looped(state, looped.block.modulate(condition), loop)
    torch.testing.assert_close(stack(start, condition).tokens, state)


def test_positions_reach_every_block():
    stack = random_stack(LoopConfig(loops=2), geometric=3)
    tokens, condition, positions = random(2, 5, WIDTH), random(2, 1, WIDTH), random(5, 3)
    found = stack(tokens, condition, positions=positions).tokens
    order = torch.tensor([2, 0, 1, 4, 3])
    reordered = stack(tokens[:, order], condition, positions=positions[order]).tokens
    torch.testing.assert_close(reordered, found[:, order])
    assert not stack(tokens, condition, positions=positions[order]).tokens.allclose(found)


@pytest.mark.parametrize("injection", [False, True])
@pytest.mark.parametrize("truncate", [1, 2, 4])
def test_truncation_keeps_the_values_and_the_gradient_of_the_last_loops(
    truncate: int, injection: bool
):
    """Compared with a pass that starts at the state where the gradient starts."""
    stack = random_stack(LoopConfig(scope="stack", init="paper", injection=injection))
    source, condition = random(2, 5, WIDTH).requires_grad_(), random(2, 1, WIDTH)
    whole = stack(source, condition, keep_states=True)
    cut = stack(source, condition, truncate=truncate)
    assert cut.tokens.equal(whole.tokens)
    parameters = [looped.block.queries_keys_values.weight for looped in looped_blocks(stack)]
    found = torch.autograd.grad(cut.tokens.square().sum(), [source, *parameters])

    assert whole.states is not None
    entered = source if truncate == 4 else whole.states[4 - truncate].detach().requires_grad_()
    state, mix = entered, units(stack)[0].injection
    for loop in range(4 - truncate, 4):
        state = state if mix is None else mix(state, source)
        for looped in looped_blocks(stack):
            state = looped(state, looped.block.modulate(condition), loop)
    of_input = source if injection else entered
    expected = torch.autograd.grad(state.square().sum(), [of_input, *parameters])
    torch.testing.assert_close(found, expected)


def test_truncated_loops_keep_nothing_for_the_backward_pass():
    stack = random_stack(LoopConfig(scope="stack"))
    tokens, condition = random(2, 5, WIDTH), random(2, 1, WIDTH)
    stack(tokens, condition, truncate=1).tokens.sum().backward()
    for looped in looped_blocks(stack):
        gradient = looped.loop_embedding.grad
        assert gradient is not None
        assert gradient[:3].abs().sum() == 0
        assert gradient[3].abs().sum() > 0


@pytest.mark.parametrize(("loops", "truncate"), [(0, None), (5, None), (2, 0)])
def test_loops_that_were_not_made_are_refused(loops: int, truncate: int | None):
    stack = fresh(LoopConfig(loops=4))
    with pytest.raises(ConfigError, match="1 to 4" if truncate is None else "truncate=0"):
        stack(torch.zeros(1, 2, WIDTH), torch.zeros(1, 1, WIDTH), loops, truncate=truncate)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(
    "config",
    [
        LoopConfig(scope="stack", init="paper", sharpest=2.0, injection=True),
        LoopConfig(init="paper", exits="token"),
        LoopConfig(init="paper", halting="token"),
    ],
    ids=str,
)
def test_bf16_autocast_stays_close_to_float32(config: LoopConfig, train: bool):
    stack = random_stack(config).float().train(train)
    tokens, condition = random(2, 9, WIDTH).float(), random(2, 1, WIDTH).float()
    exact = stack(tokens, condition).tokens
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = stack(tokens, condition).tokens
    assert rounded.dtype == torch.float32
    assert not rounded.equal(exact)
    assert (rounded - exact).norm() / exact.norm() < 0.02


@pytest.mark.parametrize(
    "config", [LoopConfig(), LoopConfig(exits="token"), LoopConfig(halting="token")], ids=str
)
def test_a_seed_gives_the_same_stack_output_and_gradients(config: LoopConfig):
    def run() -> list[Tensor]:
        stack = fresh(config, seed=7)
        output = stack(random(2, 5, WIDTH).float(), random(2, 1, WIDTH).float())
        (output.tokens.square().sum() + output.ponder).backward()
        return [output.tokens, *(p.grad for p in stack.parameters() if p.grad is not None)]

    first, second = run(), run()
    assert len(first) == len(second) > 1
    assert all(a.equal(b) for a, b in zip(first, second, strict=True))


class _Summed(nn.Module):
    """What a training step differentiates."""

    def __init__(self, stack: LoopedStack) -> None:
        super().__init__()
        self.stack = stack

    def forward(self, tokens: Tensor, condition: Tensor, bias: Tensor) -> Tensor:
        output = self.stack(tokens, condition, 3, bias)
        return output.tokens.square().sum() + output.ponder


_COMPILED = [
    LoopConfig(init="paper", sharpest=2.0),
    LoopConfig(scope="stack", init="paper", injection=True),
    LoopConfig(exits="global", ponder=0.1),
    LoopConfig(exits="token", ponder=0.1),
    LoopConfig(halting="token", ponder=0.1),
]


@pytest.mark.parametrize("config", _COMPILED, ids=str)
def test_a_fixed_number_of_loops_compiles_without_graph_breaks(config: LoopConfig):
    """Traced alone: `fullgraph` raises at a break."""
    _compare_compiled(config, "eager")


@pytest.mark.slow
# torch's own, when inductor is imported.
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("config", _COMPILED, ids=str)
def test_the_compiled_stack_computes_what_the_eager_one_does(config: LoopConfig):
    _compare_compiled(config, "inductor")


def _compare_compiled(config: LoopConfig, backend: str) -> None:
    model = _Summed(random_stack(config).float())
    tokens, condition = random(2, 9, WIDTH).float(), random(2, 1, WIDTH).float()
    bias = random(9, 9) > -1
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    losses = [run(tokens, condition, bias) for run in (model, compiled)]
    torch.testing.assert_close(losses[1], losses[0])
    gradients = [torch.autograd.grad(loss, tuple(model.parameters())) for loss in losses]
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-3)
