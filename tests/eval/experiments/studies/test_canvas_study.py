"""The canvas study learns its tasks: what no constant knows."""

import pytest
import torch

from loopdit.eval.experiments.experiment import named
from loopdit.eval.experiments.plan import resolve
from loopdit.eval.experiments.studies.canvas import Options, run
from loopdit.eval.experiments.studies.study import study_named
from loopdit.eval.experiments.tasks.hops import HOPS
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


@pytest.mark.slow
def test_chains_of_one_two_and_three_hops_are_learned_at_the_small_scale():
    options = named("2").cell_options({"loops": "1"}, "cpu")
    found = run(resolve(study_named("canvas"), options), 0, CPU).metrics
    for hops in HOPS:  # chance is an eighth
        assert found[f"accuracy_hops_{hops}"] > 0.9


@pytest.mark.system
def test_context_is_read():
    options = Options(
        task="context_4",
        from_noise=True,
        steps=150,
        batch=64,
        learning_rate=3e-3,
        examples=8192,
        held_out=256,
        looks=1,
        model=SMALL,
        measures=["guess"],
    )
    found = run(options, 0, CPU).metrics
    # Without the pairs the best guess has an error of 1, half of the constant's.
    assert found["guess_error"] < 0.5 < found["constant_main_loss"] / 2


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
