"""The stacks of peers compute what they say."""

from typing import cast

import pytest
import torch
from tests.eval.experiments.canvas.models import canvases, model_of, said, stir
from torch import Tensor, nn

from loopdit.errors import ConfigError
from loopdit.eval.experiments.canvas.stacks import STACKS, PreludeCoreCoda, put_stack
from loopdit.policy.block import KeyValue
from loopdit.policy.canvas.canvas_model import CanvasModel
from loopdit.policy.loops.config import LoopConfig
from loopdit.policy.loops.looped_block import LoopedBlock
from loopdit.policy.loops.looped_stack import LoopedStack


def with_stack(name: str, loops: LoopConfig, blocks: int = 3) -> CanvasModel:
    model = model_of(loops, blocks)
    put_stack(model, name)
    stir(model)
    return model.eval()


@torch.no_grad()
def test_output_loops_with_one_loop_are_the_looped_stack_with_one():
    canvas = canvases(3)
    plain = model_of(LoopConfig(loops=3)).eval()
    ours = model_of(LoopConfig(loops=3))
    put_stack(ours, "output_loops")
    ours.load_state_dict(plain.state_dict())
    torch.testing.assert_close(said(ours, canvas, 1), said(plain, canvas, 1))
    assert not torch.allclose(said(ours, canvas, 3), said(plain, canvas, 3))


@torch.no_grad()
def test_output_loops_move_the_outputs_alone_after_the_first():
    """Slowly, written out: after loop one the given tokens keep their state, and what they were
    attended to by in loop one."""
    model = with_stack("output_loops", LoopConfig(loops=3))
    canvas = canvases(2)
    level = torch.full((2,), 0.5)
    tokens, condition = model.tokens(canvas), model.condition(level)
    outputs = model.layout.is_output()
    expected = tokens
    for unit in model.stack.units:
        (block,) = cast(list[LoopedBlock], list(cast(nn.ModuleList, unit.blocks)))
        modulation = block.block.modulate(condition)
        first = block(expected, modulation, 0)
        entered = expected + block.loop_embedding[0]
        _, keys, values = block.block.project(entered, modulation)
        state = first
        for loop in (1, 2):
            # All tokens move, with the given ones' old keys and values; then those are put back.
            def keep(new: KeyValue, k: Tensor = keys, v: Tensor = values):
                pick = outputs[None, None, :, None]
                return torch.where(pick, new[0], k), torch.where(pick, new[1], v)

            moved = block(state, modulation, loop, None, 1.0, None, keep)
            state = torch.where(outputs[:, None], moved, first)
        expected = state
    found = model.stack(tokens, condition)
    torch.testing.assert_close(found.tokens, expected, atol=1e-5, rtol=1e-5)
    assert found.loops_used[0].tolist() == [1.0 + 2.0 * bool(moved) for moved in outputs]


@torch.no_grad()
def test_a_prelude_runs_once_and_the_core_as_often_as_asked():
    model = with_stack("prelude_core_coda", LoopConfig(loops=4))
    canvas = canvases(2)
    assert isinstance(model.stack, PreludeCoreCoda)
    prelude, core, coda = cast(list[LoopedStack], list(model.stack.parts))
    tokens, condition = model.tokens(canvas), model.condition(torch.full((2,), 0.5))
    for loops in (1, 3):
        state = core(prelude(tokens, condition).tokens, condition, loops).tokens
        expected = coda(state, condition).tokens
        torch.testing.assert_close(model.stack(tokens, condition, loops).tokens, expected)


@pytest.mark.parametrize("name", STACKS)
def test_every_parameter_of_a_stack_learns(name: str):
    model = with_stack(name, LoopConfig(loops=2)).train()
    losses = model.loss(canvases(4), model.draw(4, torch.Generator().manual_seed(0)))
    sum(losses.objective.values()).backward()  # pyright: ignore[reportAttributeAccessIssue] - a sum of tensors
    without = [n for n, p in model.stack.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_a_prelude_and_a_coda_take_three_blocks():
    with pytest.raises(ConfigError, match="takes 3 or more"):
        put_stack(model_of(LoopConfig(loops=2), blocks=2), "prelude_core_coda")
