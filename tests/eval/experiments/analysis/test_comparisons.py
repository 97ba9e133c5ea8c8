import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired
from tests.eval.experiments.analysis.judging import (
    RATIO,
    Metrics,
    column,
    experiment,
    improving,
    judged,
    log_ratios,
    lower_by,
    noise,
    standard,
)

from loopdit.eval.experiments.analysis.verdict import (
    NOT_REPRODUCED,
    NOT_RUN,
    REPRODUCED,
    UNDERPOWERED,
)


def test_a_ratio_is_tested_as_scipy_tests_pairs_of_logarithms():
    of, metrics = experiment(RATIO), improving(1.5)
    found = judged(of, metrics)
    values = log_ratios(of, metrics)
    known: Any = stats.ttest_1samp(values, 0.0)
    answer = found.findings[0]
    assert answer.value == pytest.approx(math.exp(values.mean()))
    interval = known.confidence_interval()
    assert (answer.low, answer.high) == pytest.approx(
        (math.exp(interval.low), math.exp(interval.high))
    )
    assert answer.p_supports == pytest.approx(known[1])
    short: Any = stats.ttest_1samp(values, math.log(1.5), alternative="less")
    assert answer.p_refutes == pytest.approx(min(1, 2 * short[1]))
    assert answer.n == 6
    d = math.log(1.5) / float(np.std(values, ddof=1))
    known_power = TTestPower().power(d, 6, 0.05)
    assert math.isnan(known_power) or answer.power == pytest.approx(known_power)


SAME = """
  - {id: same, kind: equivalence, of: {loops: 4}, against: {loops: 1}, margin: 1.05}
"""


def test_no_effect_is_shown_by_two_one_sided_tests_as_statsmodels_makes_them():
    of, metrics = experiment(SAME), improving(1.0)
    values = log_ratios(of, metrics)
    found = judged(of, metrics)
    known = ttost_paired(values, np.zeros(6), -math.log(1.05), math.log(1.05))[0]
    assert found.findings[0].p_supports == pytest.approx(known)
    assert found.verdict == REPRODUCED


def test_not_significant_is_not_the_same():
    def metrics(cell: Mapping[str, str], seed: int) -> Mapping[str, float]:
        return {"loss": math.exp(noise(cell, seed, size=0.3))}

    found = judged(experiment(SAME), metrics)
    known: Any = stats.ttest_1samp(log_ratios(found.experiment, metrics), 0.0)
    assert known.pvalue > 0.05
    assert found.verdict == UNDERPOWERED


def test_an_effect_beyond_the_margin_refutes_that_there_is_none():
    assert judged(experiment(SAME), improving(1.3)).verdict == NOT_REPRODUCED


def test_all_levels_are_the_same_only_if_each_pair_is():
    analysis = "  - {id: same, kind: equivalence, factor: loops, margin: 1.05}"
    assert judged(experiment(analysis), improving(1.0)).verdict == REPRODUCED
    found = judged(experiment(analysis), improving(1.3))
    assert found.verdict == NOT_REPRODUCED
    assert found.findings[0].note == "the least shown of 6"


def test_values_that_never_vary_are_judged_by_the_sign_test():
    analysis = "  - {id: gap, kind: equivalence, of: {}, margin: 0.1, metric: gap}"
    same = judged(experiment(analysis), lambda cell, seed: {"gap": 0.0})
    assert same.findings[0].p_supports == pytest.approx(0.5**6)
    assert same.verdict == REPRODUCED
    few = judged(experiment(analysis), lambda cell, seed: {"gap": 0.0}, seeds=4)
    assert few.verdict == UNDERPOWERED
    assert "sign test" in few.findings[0].test
    other = judged(experiment(analysis), lambda cell, seed: {"gap": 0.3}, seeds=12)
    assert other.verdict == NOT_REPRODUCED


def test_the_best_level_has_to_beat_each_other_one():
    analysis = "  - {id: best, kind: best, factor: loops, level: 4}"
    found = judged(experiment(analysis), improving(1.3))
    assert found.verdict == REPRODUCED
    assert found.findings[0].value == pytest.approx(1.3, rel=0.05)
    wrong = "  - {id: best, kind: best, factor: loops, level: 3}"
    assert judged(experiment(wrong), improving(1.3)).verdict == NOT_REPRODUCED
    # Nothing is best where all are alike, and nothing shows that it is not.
    assert judged(experiment(wrong), improving(1.0)).verdict == UNDERPOWERED


def test_no_worse_allows_the_margin_and_anything_better():
    analysis = "  - {id: a, kind: no_worse, of: {loops: 4}, against: {loops: 1}, margin: 1.1}"
    assert judged(experiment(analysis), improving(2.0)).verdict == REPRODUCED
    assert judged(experiment(analysis), improving(0.98)).verdict == REPRODUCED
    assert judged(experiment(analysis), improving(0.7)).verdict == NOT_REPRODUCED


def test_higher_is_better_turns_a_ratio_and_a_gain_around():
    ratio = RATIO.replace("1.5", "0.5").replace("of:", "better: higher, of:")
    assert judged(experiment(ratio), improving(2.0)).findings[0].value == pytest.approx(
        0.5, rel=0.1
    )
    gain = (
        "  - {id: a, kind: no_worse, better: higher, linear: true, of: {loops: 4},"
        " against: {loops: 1}, margin: 0.05}"
    )
    assert judged(experiment(gain), improving(2.0)).verdict == NOT_REPRODUCED


def test_a_ratio_of_ratios_is_an_interaction():
    analysis = (
        "  - {id: a, kind: ratio, of: {loops: 4}, against: {loops: 1}, at: {size: large},"
        " than: {size: small}, claimed: 1.5}"
    )

    def metrics(cell: Mapping[str, str], seed: int) -> Mapping[str, float]:
        gain = 1.5 if cell == {"loops": "4", "size": "large"} else 1.0
        return {"loss": math.exp(noise(cell, seed)) / gain}

    assert judged(experiment(analysis), metrics).findings[0].value == pytest.approx(1.5, rel=0.05)
    assert judged(experiment(analysis), improving(1.5)).verdict == NOT_REPRODUCED


def test_differences_are_tested_as_scipy_tests_pairs_and_groups():
    metrics = lower_by(0.5)
    compared = "of: {loops: 4}, against: {loops: 1}, claimed: -0.5"
    four, one = column(metrics, "4"), column(metrics, "1")
    pairs: Any = stats.ttest_rel(four, one)
    groups: Any = stats.ttest_ind(four, one, equal_var=False)
    for kind, known in (("paired", pairs), ("welch", groups)):
        found = judged(experiment(f"  - {{id: a, kind: {kind}, {compared}}}"), metrics)
        answer = found.findings[0]
        assert answer.value == pytest.approx(float(np.mean(four - one)))
        assert answer.p_supports == pytest.approx(known.pvalue)
        assert (answer.low, answer.high) == pytest.approx(tuple(known.confidence_interval()))
    # A seed's own level, which is most of what varies, is in both of a pair.
    assert pairs.pvalue < groups.pvalue


def test_two_metrics_of_one_cell_can_be_compared():
    question = "kind: paired, of: {loops: 4}, against_metric: other, claimed: -0.5"
    found = judged(experiment(f"  - {{id: a, {question}}}"), lower_by(0.5))
    assert found.findings[0].value == pytest.approx(-0.5)


def test_a_threshold_is_tested_as_scipy_tests_a_mean():
    metrics = lower_by(0.0)
    values = column(metrics, "4")
    for bound, side in ((2.0, "above"), (4.0, "below")):
        question = f"kind: threshold, of: {{loops: 4}}, {side}: {bound}"
        found = judged(experiment(f"  - {{id: a, {question}}}"), metrics)
        known: Any = stats.ttest_1samp(values, bound)
        assert found.findings[0].p_supports == pytest.approx(known.pvalue)
        assert found.verdict == REPRODUCED
        other = {"above": "below", "below": "above"}[side]
        turned = experiment(f"  - {{id: a, {question.replace(side, other)}}}")
        assert judged(turned, metrics).verdict == NOT_REPRODUCED


def test_a_smaller_spread_takes_more_seeds_than_five():
    analysis = "  - {id: a, kind: spread, of: {loops: 4}, against: {loops: 1}, claimed: 3.02}"

    def spread_by(seeds: int) -> Metrics:
        def metrics(cell: Mapping[str, str], seed: int) -> Mapping[str, float]:
            wide = 1.0 if cell["loops"] == "4" else 3.02
            return {"loss": 10 + wide * standard(seed, seeds)}

        return metrics

    # An F of 9.1 with 4 and 4 degrees of freedom: p = 0.055.
    assert judged(experiment(analysis), spread_by(5), seeds=5).verdict == UNDERPOWERED
    many = judged(experiment(analysis), spread_by(20), seeds=20)
    assert many.verdict == REPRODUCED
    assert many.findings[0].value == pytest.approx(3.02)
    assert many.findings[0].size == "as claimed"


@pytest.mark.parametrize(
    "question",
    [
        "kind: spread, of: {loops: 4}, against: {loops: 1}, claimed: 3",
        "kind: anova2, factors: [loops, size], effect: loops, claimed: 0.4",
        "kind: spearman, factor: loops, claimed: -1",
        "kind: power_law, factor: loops, claimed: 0.1",
        "kind: ratio, of: {loops: 4}, against: {loops: 1}, claimed: 2",
    ],
)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_numbers_that_are_all_alike_break_no_question_and_show_no_effect(
    question: str, value: float
):
    of = experiment(f"  - {{id: a, {question}}}")
    found = judged(of, lambda cell, seed: {"loss": value})
    if found.verdict == UNDERPOWERED:  # of zeros no ratio can be made
        assert value == 0.0
        assert found.why.startswith("No test:")
    else:
        assert found.verdict in (NOT_RUN, NOT_REPRODUCED)
    json.dumps(found.to_dict(), allow_nan=False)
