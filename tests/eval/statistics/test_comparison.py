import json
from typing import Any

import pytest
from tests.eval.paired_rows import drawn, paired_row

from loopdit.eval.statistics.comparison import compare_family, compare_rows
from loopdit.eval.statistics.multiplicity import holm
from loopdit.eval.statistics.paired import mcnemar_p_value, paired_bootstrap


def test_a_comparison_counts_the_pairs_and_tests_them():
    a, b = paired_row("sffffffffss"), paired_row("fssssssssss")
    found = compare_rows(a, b, ("A", "B"))
    assert (found.pairs, found.successes_a, found.successes_b) == (11, 3, 10)
    assert (found.only_a, found.only_b) == (1, 8)
    assert found.p_value == found.p_adjusted == mcnemar_p_value(1, 8)
    success_a, success_b = ([r["success"] for r in row["rollouts"]] for row in (a, b))
    assert found.difference == paired_bootstrap(success_a, success_b)
    assert found.difference.value == pytest.approx(7 / 11)


def test_a_shown_difference_is_said_with_the_better_one_first():
    worse, better = paired_row("f" * 15 + "s" * 35), paired_row("s" * 48 + "ff")
    sentences = [
        compare_rows(worse, better, ("old", "new")).sentence(),
        compare_rows(better, worse, ("new", "old")).sentence(),
    ]
    for sentence in sentences:
        assert sentence.startswith(
            "new succeeds more often than old: 96 % against 70 % of the same 50 starts, "
            "26 points more (95 % interval "
        )
        assert "McNemar p = 0.0023" in sentence
        assert "does not show" not in sentence
    assert sentences[0] == sentences[1]


def test_no_difference_is_said_plainly_with_what_would_have_been_found():
    a, b = paired_row(drawn(0.6, 50, 1)), paired_row(drawn(0.62, 50, 2))
    found = compare_rows(a, b, ("old", "new"))
    assert not found.shown
    assert found.detectable == pytest.approx(0.3, abs=0.05)
    assert found.sentence().startswith("This run does not show a difference between old and new: ")
    assert found.sentence().endswith(
        f"with n=50 pairs a difference of about {100 * (found.detectable or 0):.0f} points would "
        f"have been found 8 times in 10."
    )


def test_few_pairs_are_said_to_be_too_few_for_any_difference():
    found = compare_rows(paired_row("fffff"), paired_row("sssss"))
    assert found.difference.value == 1
    assert not found.shown
    assert (
        "with n=5 pairs no difference, however large, could well have been found"
        in found.sentence()
    )


def test_equal_outcomes_leave_room_for_what_was_not_seen():
    found = compare_rows(paired_row("sfsfsfsf"), paired_row("sfsfsfsf"))
    # Clopper-Pearson of 0 in 8.
    bound = 1 - 0.025 ** (1 / 8)
    assert (found.difference.low, found.difference.high) == pytest.approx((-bound, bound))
    assert found.p_value == 1


def test_a_family_is_corrected_for_its_number():
    reference = paired_row("f" * 20 + "s" * 20)
    rows = [paired_row("s" * count + "f" * (20 - count) + "s" * 20) for count in (6, 8, 2)]
    alone = [compare_rows(reference, row) for row in rows]
    family = compare_family(rows, reference)
    assert [found.p_adjusted for found in family] == holm([found.p_value for found in alone])
    assert [found.shown for found in alone] == [True, True, False]
    assert [found.shown for found in family] == [False, True, False]
    assert "corrected for 3 comparisons" in family[0].sentence()
    assert (family[0].detectable or 0) > (alone[0].detectable or 0)


def test_a_run_that_stopped_early_is_judged_by_its_e_value():
    a, b = paired_row("f" * 7 + "s"), paired_row("s" * 8)
    fixed = compare_rows(a, b)
    stopped = compare_rows(a, {**b, "sequential": {"alpha": 0.05}})
    assert fixed.p_value < 0.05 < 1 / fixed.e_value
    assert (fixed.shown, stopped.shown) == (True, False)
    assert "e-value 14.4" in stopped.sentence()
    assert "McNemar" not in stopped.sentence()


def test_evidence_once_sufficient_stays_so_in_a_run_that_may_stop():
    a, b = paired_row("f" * 8 + "s" * 8, sequential=True), paired_row("s" * 8 + "f" * 8)
    found = compare_rows(a, b)
    assert found.e_value < 20 < found.e_peak
    assert found.shown


def test_time_to_success_is_compared_where_both_succeed():
    def timed(outcomes: str, steps: list[int], **changed: Any) -> dict[str, Any]:
        row = paired_row(outcomes, **changed)
        for rollout, count in zip(row["rollouts"], steps, strict=True):
            rollout["steps"] = count
        return row

    a, b = timed("sssf", [50, 60, 70, 120]), timed("ssss", [40, 40, 40, 40])
    seconds = compare_rows(a, b).seconds
    assert seconds is not None
    assert seconds.value == pytest.approx(-2)
    assert seconds.low < seconds.value < seconds.high < 0
    assert compare_rows(a, paired_row("ffff")).seconds is None
    del b["control"]
    assert compare_rows(a, b).seconds is None


def test_a_comparison_is_plain_json():
    found = compare_rows(paired_row("s" * 40), paired_row("f" * 40))
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert data["sentence"] == found.sentence()
    assert (data["rate_a"], data["rate_b"], data["shown"]) == (1, 0, True)
    assert data["difference"]["value"] == -1
    assert data["left_out_a"] == {"seeds": 0, "unstable": 0, "errors": 0}
