import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from tests.eval.experiments.analysis.judging import (
    RATIO,
    Metrics,
    experiment,
    improving,
    judged,
    noise,
    results,
    standard,
)

from loopdit.errors import ConfigError
from loopdit.eval.experiments.analysis.question import questions_of
from loopdit.eval.experiments.analysis.verdict import (
    MISSING,
    NOT_REPRODUCED,
    NOT_RUN,
    REPRODUCED,
    UNDERPOWERED,
    verdicts,
)
from loopdit.eval.experiments.experiment import Experiment, experiments, named
from loopdit.eval.experiments.store import CellResult


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


def test_a_ratio_that_cannot_be_made_is_no_test_and_not_a_run_that_is_missing():
    def metrics(cell: Mapping[str, str], seed: int) -> Mapping[str, float]:
        nothing = cell == {"loops": "4", "size": "large"} and seed == 2
        return {"loss": 0.0} if nothing else improving(1.5)(cell, seed)

    found = judged(experiment(RATIO), metrics)
    assert found.verdict == UNDERPOWERED
    assert "loss is 0 in loops=4, size=large, seed 2" in found.why


def test_only_seeds_that_all_cells_have_are_compared():
    of = experiment(RATIO)
    some = [
        r for r in results(of, improving(1.5)) if r.factors["loops"] != "4" or r.seed in (1, 3, 4)
    ]
    assert verdicts([(of, "cpu", some)])[0].findings[0].n == 3


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
