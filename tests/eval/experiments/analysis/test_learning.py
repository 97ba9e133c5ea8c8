import math
from collections.abc import Mapping

import pytest
from tests.eval.experiments.analysis.judging import HEAD, RATIO, Metrics, improving, judged, noise

from loopdit.eval.experiments.analysis.verdict import REPRODUCED, UNDERPOWERED
from loopdit.eval.experiments.experiment import experiments, read

NOTHING = "Nothing was learned, so noise is compared: no arm beats chance"
LEARNED = "learned: [{metric: loss, chance: constant}]\n"


def against_chance(times_better: float, loops: str) -> Metrics:
    """Loss as of `improving`; the constant's is so many times that of the cells with `loops`."""

    def metrics(cell: Mapping[str, str], seed: int) -> Mapping[str, float]:
        loss = improving(1.5)(cell, seed)["loss"]
        gain = times_better if cell["loops"] == loops else 0.9
        return {"loss": loss, "constant": gain * loss * math.exp(noise(cell, seed) / 100)}

    return metrics


def test_a_comparison_in_which_no_arm_beats_chance_gets_no_verdict_and_says_so():
    of = read("one", HEAD.format(number=1).replace("analysis:", f"{LEARNED}analysis:") + RATIO)
    # 4 loops are 1.5 times better than 1, and both are no better than who says one thing.
    found = judged(of, against_chance(1.0, "4"))
    assert found.verdict == UNDERPOWERED
    assert found.why.startswith(f"{NOTHING} (loss is")
    assert found.p_supports is None
    assert found.findings[0].value == pytest.approx(1.5, rel=0.1)
    # One arm that does is enough, as the others may be what the claim says of them.
    assert judged(of, against_chance(2.0, "4")).verdict == REPRODUCED
    # 3 % is no ability, however many seeds are sure of it.
    assert judged(of, against_chance(1.03, "4")).why.startswith(NOTHING)


def test_chance_is_beaten_upwards_where_more_is_better():
    learned = "learned: [{metric: f1, chance: chance_f1, better: higher}]\n"
    of = read("one", HEAD.format(number=1).replace("analysis:", f"{learned}analysis:") + RATIO)

    def scored(f1: float) -> Metrics:
        def metrics(cell: Mapping[str, str], seed: int) -> Mapping[str, float]:
            return {**improving(1.5)(cell, seed), "f1": f1 + 0.01 * seed, "chance_f1": 0.57}

        return metrics

    assert judged(of, scored(0.9)).verdict == REPRODUCED
    assert judged(of, scored(0.3)).why.startswith(NOTHING)


def test_success_has_to_be_more_than_none_where_chance_is_none():
    learned = "learned: [{metric: success, above: 0.05}]\n"
    of = read("one", HEAD.format(number=1).replace("analysis:", f"{learned}analysis:") + RATIO)

    def succeeding(share: float) -> Metrics:
        return lambda cell, seed: {
            **improving(1.5)(cell, seed),
            "success": share * (0.9 + 0.02 * seed) if cell["loops"] == "4" else 0.0,
        }

    assert judged(of, succeeding(0.6)).verdict == REPRODUCED
    nothing = judged(of, succeeding(0.0))
    assert nothing.verdict == UNDERPOWERED
    assert nothing.why.startswith(f"{NOTHING} (success is 0 at best")


def test_two_seeds_that_beat_chance_without_showing_it_have_not_learned_nothing():
    learned = "learned: [{metric: success, above: 0.05}]\n"
    of = read("one", HEAD.format(number=1).replace("analysis:", f"{learned}analysis:") + RATIO)

    def succeeding(cell: Mapping[str, str], seed: int) -> Mapping[str, float]:
        return {**improving(1.5)(cell, seed), "success": 1.0 if seed else 0.3}

    found = judged(of, succeeding, seeds=2)
    assert found.verdict == UNDERPOWERED
    assert found.why.startswith("No test: the seeds do not show that any arm beats chance (success")
    assert judged(of, succeeding, seeds=6).verdict == REPRODUCED


def test_every_experiment_that_trains_says_what_has_to_be_learned():
    assert [one.number for one in experiments().values() if not one.learned] == [23]
