"""The canvas study learns its tasks: what no constant knows."""

import pytest
import torch

from loopdit.eval.experiments.studies.canvas import Options, run
from loopdit.policy.canvas.config import CanvasModelConfig
from loopdit.policy.loops.config import LoopConfig

CPU = torch.device("cpu")
SMALL = CanvasModelConfig(width=32, heads=2, blocks=2, loops=LoopConfig(loops=2, init="paper"))


@pytest.mark.system
def test_collisions_are_learned_better_than_the_best_constant_and_harder_levels_less():
    options = Options(
        task="collisions",
        steps=250,
        batch=32,
        learning_rate=3e-3,
        examples=4096,
        held_out=256,
        looks=4,
        model=SMALL,
        measures=["splits", "guess"],
    )
    found = run(options, 0, CPU)
    assert found.metrics["guess_error"] < found.metrics["constant_main_loss"] / 4
    assert found.metrics["last_first_ratio"] > 1
    assert found.curve is not None
    assert found.curve["total_loss"][-1] < found.curve["total_loss"][0]


def test_a_penalty_on_what_loops_amplify_lowers_it():
    made: list[float] = []
    for contract in (0.0, 3.0):
        options = Options(
            task="context_1",
            steps=40,
            batch=8,
            learning_rate=3e-3,
            examples=64,
            held_out=4,
            looks=1,
            contract=contract,
            model=CanvasModelConfig(
                width=16,
                heads=2,
                blocks=1,
                loops=LoopConfig(loops=2, init="paper", injection=True),
            ),
            measures=["fixed_point"],
        )
        made.append(run(options, 0, CPU).metrics["lipschitz_last"])
    assert made[1] < made[0]
