import pytest
import torch
from tests.policy.loops.stacks import WIDTH, fresh, looped_blocks, random, random_stack

from loopdit.policy.block import AdaLNBlock
from loopdit.policy.loops.config import LoopConfig
from loopdit.policy.loops.looped_block import LoopedBlock


def test_a_loop_mixes_what_the_block_makes_of_state_and_embedding_with_the_state():
    """h + g (F(h + e) - h), with the gate of the state before the embedding is added."""
    (looped,) = looped_blocks(random_stack(LoopConfig(loops=3, init="paper"), blocks=1))
    h, condition = random(2, 5, WIDTH), random(2, 1, WIDTH)
    e, w, b = looped.loop_embedding[1], looped.gate_weight[1], looped.gate_bias[1]
    made, _ = looped.block(h + e, condition)
    gate = 1 / (1 + torch.exp(-((h * w).sum(-1, keepdim=True) + b)))
    found = looped(h, looped.block.modulate(condition), 1)
    torch.testing.assert_close(found, gate * made + (1 - gate) * h)


@pytest.mark.parametrize("scope", ["block", "stack"])
@pytest.mark.parametrize("loops", [1, 4])
def test_a_loop_of_a_block_has_two_vectors_and_a_number(scope: str, loops: int):
    plain = sum(p.numel() for p in AdaLNBlock(WIDTH).parameters())
    stack = fresh(LoopConfig(loops=loops, scope=scope), blocks=3)
    found = sum(p.numel() for p in stack.parameters())
    assert found == 3 * (plain + loops * (2 * WIDTH + 1))


def test_the_identity_start_has_a_gate_of_one_and_then_hardly_any():
    looped = LoopedBlock(AdaLNBlock(WIDTH), WIDTH, 3, "identity")
    tokens = random(2, 5, WIDTH).float()
    first, *later = (looped.gate(tokens, loop) for loop in range(3))
    assert first.equal(torch.ones(2, 5, 1))
    for gate in later:
        torch.testing.assert_close(gate, torch.full((2, 5, 1), 0.00247262))


def test_the_papers_start_is_half_open_everywhere():
    looped = LoopedBlock(AdaLNBlock(WIDTH), WIDTH, 3, "paper")
    for loop in range(3):
        assert looped.gate(random(2, 5, WIDTH).float(), loop).equal(torch.full((2, 5, 1), 0.5))


def test_the_first_gate_of_the_identity_start_is_exact_and_learns():
    """A sigmoid that gives 1 has no gradient; this one has more than the paper's start."""
    (looped,) = looped_blocks(fresh(LoopConfig(loops=1), blocks=1))
    tokens, condition = random(1, 5, WIDTH).float(), random(1, 1, WIDTH).float()
    looped(tokens, looped.block.modulate(condition), 0).square().sum().backward()
    assert looped.gate_weight.grad is not None
    assert looped.gate_weight.grad.abs().min() > 1e-3
    saturated = torch.tensor(20.0, requires_grad=True)
    gate = saturated.sigmoid()
    gate.backward()
    assert gate == 1
    assert saturated.grad == 0
