"""What the first sentences say, and that they say no more than the numbers."""

from typing import Any

from tests.eval.report_rows import expert_row, report_row

from loopdit.eval.reporting.report_rows import Group, completed, grouped
from loopdit.eval.reporting.verdict import power_sentence, summary
from loopdit.eval.statistics.comparison import compare_rows, corrected
from loopdit.eval.statistics.matching import row_text


def told(*rows: dict[str, Any], keys: tuple[str, ...] = ("delay",)) -> str:
    """The summary with the comparisons that an evaluation of these rows makes."""
    groups, _ = grouped([completed({**row, "plan": "p"}) for row in rows])
    first, *others = rows
    pairs = [(first, other) for other in others]
    found = corrected(
        [compare_rows(a, b, (row_text(a, keys), row_text(b, keys))) for a, b in pairs]
    )
    return " ".join(summary(groups[0], [], [{**one.to_dict(), "plan": "p"} for one in found]))


def test_what_is_shown_and_what_is_not_are_both_said():
    text = told(
        report_row("s" * 20),
        report_row("s" * 19 + "f", loops=2),
        report_row("f" * 20, delay="3"),
    )
    assert "Shown, in a paired test corrected for 2 comparisons: K=1, delay=3 succeeds less" in text
    assert "less often than K=1, delay=0." in text
    assert "Not shown: a difference between K=1, delay=0 and K=2, delay=0." in text
    assert "no proof that they are equal" in text
    assert "would have been found 8 times in 10" in text


def test_rollouts_without_a_verdict_are_told_beside_the_rate():
    text = told(report_row("seeu"), report_row("ssse", loops=2))
    assert "3 of 8 rollouts raised an error and 1 of 8 rollouts ended in broken physics" in text
    assert "raised an error" not in told(report_row("sf"))


def test_the_best_of_several_is_called_chosen():
    text = told(report_row("sssf"), report_row("ssss", loops=2))
    assert "best of 2 conditions, chosen on the seeds it is reported on" in text
    assert "chosen" not in summary(Group("one", [completed(report_row("sssf"))]), [])[0]


def test_names_leave_out_what_all_have_in_common_and_what_is_not_disturbed():
    keys = ("variation", "fault")
    text = told(report_row("ss"), report_row("sf", fault="black"), keys=keys)
    assert "between the undisturbed one and fault=black" in text


def test_a_long_list_of_conditions_is_cut():
    rows = [report_row("s" * 8, delay=str(delay)) for delay in range(9)]
    text = told(*rows)
    assert "delay=1; delay=2; delay=3; delay=4; and 4 more." in text


def test_controls_are_told_once_each_and_undisturbed_ones_first():
    group = Group("one", [completed(report_row("ssff"))])
    experts = [completed(expert_row(o, delay=d)) for d, o in (("0", "ssss"), ("2", "ssff"))]
    assert "on the same starts: expert 4/4." in " ".join(summary(group, experts))


def test_power_of_few_starts_is_said_to_be_none():
    few, many = (completed(report_row("sf" * n)) for n in (2, 50))
    assert power_sentence(None, few).startswith("4 starts are too few")
    assert "On 100 starts, another condition would have to differ by about" in power_sentence(
        None, many
    )
