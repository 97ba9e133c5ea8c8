import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

from loopdit.errors import ConfigError
from loopdit.eval.experiments.analysis.question import questions_of
from loopdit.eval.experiments.analysis.verdict import (
    MISSING,
    NOT_REPRODUCED,
    NOT_RUN,
    NOTHING_LEARNED,
    REPRODUCED,
    UNDERPOWERED,
    Verdict,
    verdicts,
)
from loopdit.eval.experiments.experiment import Experiment, experiments, named, read
from loopdit.eval.experiments.store import CellResult

Metrics = Callable[[Mapping[str, str], int], Mapping[str, float]]

HEAD = """
number: {number}
title: A title
claim: A claim.
choices: [One.]
study: canvas
metric: loss
better: lower
factors:
  loops: [1, 2, 3, 4]
  size: [small, large]
scales:
  smoke: {{seeds: 1}}
  cpu: {{seeds: 5}}
  paper: {{seeds: 5}}
analysis:
"""


def experiment(analysis: str, number: int | str = 1) -> Experiment:
    return read("one", HEAD.format(number=number) + analysis)


def results(of: Experiment, metrics: Metrics, seeds: int = 6) -> list[CellResult]:
    return [
        CellResult(
            experiment=of.name,
            number=of.number,
            scale="cpu",
            factors=cell,
            seed=seed,
            metrics=metrics(cell, seed),
            curve=None,
            config_hash="",
            options={},
            parameters=1,
            wall_s=1.0,
            provenance={},
        )
        for cell in of.cells()
        for seed in range(seeds)
    ]


def judged(of: Experiment, metrics: Metrics, seeds: int = 6, scale: str = "cpu") -> Verdict:
    return verdicts([(of, scale, results(of, metrics, seeds))])[0]


def noise(cell: Mapping[str, str], seed: int, size: float = 0.02) -> float:
    """A seed's own level, which pairs share, and the cell's own noise."""
    own = np.random.default_rng([seed, 0]).normal(0, 0.3)
    number = 10 * int(cell["loops"]) + (cell["size"] == "large")
    return float(own + np.random.default_rng([seed, number]).normal(0, size))


def standard(seed: int, seeds: int) -> float:
    """Of as many numbers with mean 0 and standard deviation 1."""
    numbers = np.arange(seeds) - (seeds - 1) / 2
    return float(numbers[seed] / numbers.std(ddof=1))


def improving(factor: float) -> Metrics:
    """Loss that 4 loops divide by `factor`."""

    def metrics(cell: Mapping[str, str], seed: int) -> Mapping[str, float]:
        gain = factor if cell["loops"] == "4" else 1.0
        return {"loss": math.exp(noise(cell, seed)) / gain}

    return metrics


RATIO = "  - {id: total, kind: ratio, of: {loops: 4}, against: {loops: 1}, claimed: 1.5}"


def log_ratios(of: Experiment, metrics: Metrics, seeds: int = 6) -> np.ndarray:
    """log loss of 1 loop less that of 4, mean over sizes, for each seed: the slow way."""
    loss = {
        (r.factors["loops"], r.factors["size"], r.seed): math.log(r.metrics["loss"])
        for r in results(of, metrics, seeds)
    }
    return np.array(
        [
            np.mean([loss["1", size, seed] - loss["4", size, seed] for size in ("small", "large")])
            for seed in range(seeds)
        ]
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


def test_an_effect_as_claimed_is_reproduced():
    found = judged(experiment(RATIO), improving(1.5))
    assert found.verdict == REPRODUCED
    assert found.findings[0].size == "as claimed"


def test_no_effect_where_one_is_claimed_is_not_reproduced():
    assert judged(experiment(RATIO), improving(1.0)).verdict == NOT_REPRODUCED


def test_an_effect_the_other_way_is_not_reproduced():
    found = judged(experiment(RATIO), improving(0.7))
    assert found.verdict == NOT_REPRODUCED
    assert found.findings[0].size == "the other way"


def test_a_smaller_effect_than_claimed_is_reproduced_and_said_to_be_smaller():
    found = judged(experiment(RATIO), improving(1.15))
    assert found.verdict == REPRODUCED
    assert found.findings[0].size == "smaller"
    assert "smaller than claimed" in found.why


def test_noise_that_hides_the_claimed_effect_is_underpowered_and_says_how_many_seeds_it_takes():
    def metrics(cell: Mapping[str, str], seed: int) -> Mapping[str, float]:
        gain = 1.2 if cell["loops"] == "4" else 1.0
        return {"loss": math.exp(noise(cell, seed, size=0.8)) / gain}

    found = judged(experiment(RATIO), metrics)
    assert found.verdict == UNDERPOWERED
    answer = found.findings[0]
    assert answer.low is not None
    assert answer.high is not None
    assert answer.low < 1 < 1.5 < answer.high
    assert answer.power is not None
    assert answer.power < 0.8
    assert answer.seeds_needed is not None
    assert answer.seeds_needed > 6
    assert f"{answer.seeds_needed} seeds" in found.why


def test_a_smoke_run_shows_values_and_no_verdict():
    found = judged(experiment(RATIO), improving(1.5), seeds=1, scale="smoke")
    assert found.verdict == NOT_RUN
    assert found.to_dict()["value"] == pytest.approx(1.5, rel=0.2)
    assert found.to_dict()["interval"] is None
    many = judged(experiment(RATIO), improving(1.5), seeds=6, scale="smoke")
    assert many.verdict == NOT_RUN


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
    assert found.verdict == NOTHING_LEARNED
    assert "No arm beats chance: loss is" in found.why
    assert found.p_supports is None
    assert found.findings[0].value == pytest.approx(1.5, rel=0.1)
    # One arm that does is enough, as the others may be what the claim says of them.
    assert judged(of, against_chance(2.0, "4")).verdict == REPRODUCED
    # 3 % is no ability, however many seeds are sure of it.
    assert judged(of, against_chance(1.03, "4")).verdict == NOTHING_LEARNED


def test_chance_is_beaten_upwards_where_more_is_better():
    learned = "learned: [{metric: f1, chance: chance_f1, better: higher}]\n"
    of = read("one", HEAD.format(number=1).replace("analysis:", f"{learned}analysis:") + RATIO)

    def scored(f1: float) -> Metrics:
        def metrics(cell: Mapping[str, str], seed: int) -> Mapping[str, float]:
            return {**improving(1.5)(cell, seed), "f1": f1 + 0.01 * seed, "chance_f1": 0.57}

        return metrics

    assert judged(of, scored(0.9)).verdict == REPRODUCED
    assert judged(of, scored(0.3)).verdict == NOTHING_LEARNED


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
    assert nothing.verdict == NOTHING_LEARNED
    assert "success is 0 at best" in nothing.why


def test_every_experiment_that_trains_says_what_has_to_be_learned():
    assert [one.number for one in experiments().values() if not one.learned] == [23]


def test_the_number_that_the_paper_lacks_is_missing_and_not_merely_not_run():
    assert verdicts([(named("23"), "", [])])[0].verdict == MISSING


def test_three_loops_have_to_be_best_at_each_freeze_level():
    of = named("26")
    asked = [q for q in questions_of(of) if q.kind == "best" and not q.beside]
    assert [q.at["freeze"] for q in asked] == [["frozen"], ["half"], ["unfrozen"]]

    def metrics(levels: Sequence[str]) -> Metrics:
        """3 loops are best at `levels` and worst elsewhere."""

        def of_cell(cell: Mapping[str, str], seed: int) -> Mapping[str, float]:
            own = np.random.default_rng([seed, int(cell["loops"])]).normal(0, 0.01)
            gain = 0.0 if cell["loops"] != "3" else 0.3 if cell["freeze"] in levels else -0.3
            diffusion = 1.4 if cell["freeze"] == "frozen" else 0.16
            return {
                "action_loss": 0.1 * math.exp(float(own) - gain),
                "constant_action_loss": 0.2,
                "diffusion_loss": diffusion * math.exp(float(own)),
            }

        return of_cell

    everywhere = judged(of, metrics(["frozen", "half", "unfrozen"]))
    assert all(f.p_supports is not None and f.p_supports < 0.01 for f in everywhere.findings[:3])
    assert judged(of, metrics(["frozen", "half"])).verdict == NOT_REPRODUCED


def test_one_seed_is_never_enough():
    assert judged(experiment(RATIO), improving(1.5), seeds=1).verdict == UNDERPOWERED


def test_without_results_or_without_a_cell_there_is_no_verdict():
    of = experiment(RATIO)
    assert verdicts([(of, "", [])])[0].verdict == NOT_RUN
    some = [r for r in results(of, improving(1.5)) if r.factors != {"loops": "4", "size": "large"}]
    found = verdicts([(of, "cpu", some)])[0]
    assert found.verdict == NOT_RUN
    assert "loops=4, size=large has no results" in found.why


def test_only_seeds_that_all_cells_have_are_compared():
    of = experiment(RATIO)
    some = [
        r for r in results(of, improving(1.5)) if r.factors["loops"] != "4" or r.seed in (1, 3, 4)
    ]
    assert verdicts([(of, "cpu", some)])[0].findings[0].n == 3


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


def lower_by(gain: float) -> Metrics:
    """Loss that is lower by `gain` with 4 loops; `other` is what it was."""

    def metrics(cell: Mapping[str, str], seed: int) -> Mapping[str, float]:
        loss = 3 + noise(cell, seed, size=0.1)
        return {"loss": loss - gain if cell["loops"] == "4" else loss, "other": loss}

    return metrics


def column(metrics: Metrics, loops: str, name: str = "loss") -> np.ndarray:
    """(6,): the mean over sizes, by seed."""
    sizes = ("small", "large")
    return np.array(
        [
            np.mean([metrics({"loops": loops, "size": size}, seed)[name] for size in sizes])
            for seed in range(6)
        ]
    )


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
    assert found.verdict in (NOT_RUN, NOT_REPRODUCED)
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_claim_of_two_parts_needs_both_and_what_is_beside_counts_for_nothing():
    both = RATIO + "\n  - {id: two, kind: ratio, of: {loops: 2}, against: {loops: 1}, claimed: 1.5}"
    assert judged(experiment(both), improving(1.5)).verdict == NOT_REPRODUCED
    beside = both.removesuffix("}") + ", beside: true}"
    assert judged(experiment(beside), improving(1.5)).verdict == REPRODUCED


def test_verdicts_are_corrected_over_the_papers_experiments_and_over_ours_apart():
    def borderline(cell: Mapping[str, str], seed: int) -> Mapping[str, float]:
        gain = 0.4 + 0.29 * standard(seed, 6) if cell["loops"] == "4" else 0.0
        return {"loss": math.exp(-gain)}

    papers, ours = experiment(RATIO), experiment(RATIO, number="null")
    alone = verdicts([(papers, "cpu", results(papers, borderline))])[0]
    assert alone.p_supports is not None
    assert 0.05 / 8 < alone.p_supports <= 0.05
    assert alone.verdict == REPRODUCED
    family: list[tuple[Experiment, str, Sequence[CellResult]]] = [
        (papers, "cpu", results(papers, borderline)) for _ in range(8)
    ]
    found = verdicts([*family, (ours, "cpu", results(ours, borderline))])
    assert {one.verdict for one in found[:8]} == {UNDERPOWERED}
    assert found[0].p_supports_adjusted == pytest.approx(8 * alone.p_supports)
    assert found[8].verdict == REPRODUCED


@pytest.mark.parametrize(
    ("analysis", "said"),
    [
        ("  - {id: a, kind: ration}", "kind=ration is unknown"),
        (
            "  - {id: a, kind: ratio, of: {loops: 9}, against: {loops: 1}, claimed: 2}",
            "no level '9'",
        ),
        ("  - {id: a, kind: ratio, of: {depth: 9}, against: {loops: 1}, claimed: 2}", "no factor"),
        ("  - {id: a, kind: ratio, of: {loops: 4}, against: {loops: 1}}", "claimed or least"),
        ("  - {id: a, kind: ratio, of: {loops: 4}, claimed: 2}", "needs against"),
        (
            "  - {id: a, kind: ratio, of: {}, against: {}, claimed: 2, margin: 3}",
            "no field 'margin'",
        ),
        ("  - {id: a, kind: equivalence, factor: loops, margin: 0.9}", "must be above 1"),
        ("  - {id: a, kind: threshold, of: {}}", "above or below"),
        ("  - {kind: threshold, of: {}, above: 1}", "needs 'id'"),
    ],
)
def test_a_question_that_cannot_be_answered_is_refused_with_its_file(analysis: str, said: str):
    with pytest.raises(ConfigError, match=said) as refused:
        questions_of(experiment(analysis))
    assert "configs/experiment/one.yaml" in str(refused.value)


def test_a_metric_that_results_do_not_have_is_named():
    of = experiment("  - {id: a, kind: threshold, metric: los, of: {}, above: 1}")
    with pytest.raises(ConfigError, match=r"'los'.*loss"):
        judged(of, improving(1.0))


def test_every_experiment_asks_questions_that_its_cells_can_answer():
    for one in experiments().values():
        asked = questions_of(one)
        assert one.missing or any(not question.beside for question in asked), one.name
