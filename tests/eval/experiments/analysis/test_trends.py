import math
from collections.abc import Mapping

import numpy as np
import pytest
from scipy import stats
from tests.eval.experiments.analysis.judging import Metrics, experiment, judged, noise

from loopdit.eval.experiments.analysis.verdict import NOT_REPRODUCED, REPRODUCED


def falling(alpha: float) -> Metrics:
    def metrics(cell: Mapping[str, str], seed: int) -> Mapping[str, float]:
        return {"loss": math.exp(noise(cell, seed)) * int(cell["loops"]) ** -alpha}

    return metrics


def test_a_power_law_gives_its_exponent_back():
    analysis = "  - {id: a, kind: power_law, factor: loops, claimed: 0.4}"
    found = judged(experiment(analysis), falling(0.4))
    assert found.findings[0].value == pytest.approx(0.4, abs=0.03)
    assert found.verdict == REPRODUCED
    assert judged(experiment(analysis), falling(0.0)).verdict == NOT_REPRODUCED


def test_an_order_is_shown_by_pages_test():
    analysis = "  - {id: a, kind: spearman, factor: loops, claimed: -1, least: -0.5}"
    found = judged(experiment(analysis), falling(0.4))
    y = [
        [falling(0.4)({"loops": k, "size": size}, seed)["loss"] for k in "1234"]
        for seed in range(6)
        for size in ("small", "large")
    ]
    means = np.array(y).reshape(6, 2, 4).mean(1)
    assert found.findings[0].p_supports == pytest.approx(2 * stats.page_trend_test(-means).pvalue)
    assert found.verdict == REPRODUCED
    assert judged(experiment(analysis), falling(-0.4)).verdict == NOT_REPRODUCED


def test_an_order_over_metrics_can_be_of_improvements():
    names = ("near", "further", "far")
    analysis = (
        "  - {id: a, kind: spearman, metrics: [near, further, far], of: {loops: 4},"
        " against: {loops: 1}, claimed: -1, least: -0.5}"
    )

    def metrics(cell: Mapping[str, str], seed: int) -> Mapping[str, float]:
        loss = math.exp(noise(cell, seed))
        gains = (2.4, 1.6, 1.2) if cell["loops"] == "4" else (1.0, 1.0, 1.0)
        return {name: loss / gain for name, gain in zip(names, gains, strict=True)}

    found = judged(experiment(analysis), metrics)
    assert found.verdict == REPRODUCED
    assert found.findings[0].value == -1.0
    rising = analysis.replace("[near, further, far]", "[far, further, near]")
    assert judged(experiment(rising), metrics).verdict == NOT_REPRODUCED


def test_an_interaction_that_is_there_is_found_by_anova_and_one_that_is_not_is_shown_absent():
    present = "  - {id: a, kind: anova2, factors: [loops, size], effect: interaction, claimed: 0.4}"
    absent = "  - {id: a, kind: anova2, factors: [loops, size], effect: interaction, margin: 0.6}"

    def crossing(cell: Mapping[str, str], seed: int) -> Mapping[str, float]:
        sign = 1 if cell["size"] == "large" else -1
        own = np.random.default_rng([seed, int(cell["loops"]), sign + 1]).normal()
        return {"loss": 5 + sign * int(cell["loops"]) + own}

    def parallel(cell: Mapping[str, str], seed: int) -> Mapping[str, float]:
        return {
            "loss": crossing(cell, seed)["loss"]
            - 2 * (cell["size"] == "large") * int(cell["loops"])
        }

    assert judged(experiment(present), crossing, seeds=20).verdict == REPRODUCED
    assert judged(experiment(absent), crossing, seeds=20).verdict == NOT_REPRODUCED
    assert judged(experiment(absent), parallel, seeds=40).verdict == REPRODUCED
    assert judged(experiment(present), parallel, seeds=40).verdict == NOT_REPRODUCED
