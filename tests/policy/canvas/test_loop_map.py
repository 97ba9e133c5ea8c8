from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.policy.canvas.moving_squares import moving_squares

from loopdit.errors import ConfigError
from loopdit.policy.canvas.canvas_model import CanvasModel
from loopdit.policy.canvas.config import CanvasModelConfig
from loopdit.policy.canvas.loop_map import canvas_loops
from loopdit.policy.loops.config import LoopConfig

CONFIG = CanvasModelConfig(
    width=32,
    heads=2,
    blocks=2,
    topology="causal_in_time",
    geometric=True,
    loops=LoopConfig(loops=3, sharpest=2.0),
)


@pytest.mark.parametrize(("scope", "units"), [("block", 2), ("stack", 1)])
@pytest.mark.parametrize("injection", [False, True])
def test_the_map_applied_again_and_again_is_the_pass_of_the_model(
    scope: str, units: int, injection: bool
):
    torch.manual_seed(0)
    loops = replace(CONFIG.loops, scope=scope, injection=injection)
    model = CanvasModel(replace(CONFIG, loops=loops)).eval().requires_grad_(False)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    canvas, level = moving_squares(2, seed=1), torch.full((2,), 0.5)
    states = model(canvas, level, keep_states=True).states
    assert len(states) == 1 + 3 * units
    for unit in range(units):
        step, state = canvas_loops(model, canvas, level, unit)
        for loop in range(3):
            state = step(state, loop)
            torch.testing.assert_close(state, states[1 + 3 * unit + loop])
        assert torch.equal(step(state, 7), step(state, 2))
    with pytest.raises(ConfigError, match=f"unit={units} is out of range"):
        canvas_loops(model, canvas, level, units)


@pytest.mark.parametrize("ending", [{"exits": "token"}, {"halting": "token", "halt_at": 0.2}])
def test_a_block_begins_where_the_one_before_it_ended_however_that_ended(ending: dict[str, Any]):
    torch.manual_seed(0)
    loops = replace(CONFIG.loops, init="paper", **ending)
    model = CanvasModel(replace(CONFIG, loops=loops)).eval().requires_grad_(False)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    canvas, level = moving_squares(2, seed=1), torch.full((2,), 0.5)
    tokens, condition = model.tokens(canvas), model.condition(level)
    ended, *_ = model.stack.units[0](tokens, condition, 3, model.bias, model.coordinates, None)
    assert torch.equal(canvas_loops(model, canvas, level, 1).start, ended)
