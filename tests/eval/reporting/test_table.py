"""The table for the terminal: rows that differ can be told apart in it."""

import io

from rich.console import Console
from tests.eval.report_rows import report_row

from loopdit.eval.reporting.table import loops_text, results_table
from loopdit.eval.runs.results import Row


def printed(*rows: Row) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(results_table(rows, "a title"))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_environments_own_rate_is_told_apart_from_one_that_was_asked_for():
    text = printed(report_row("s", rate_hz=0.0), report_row("s", rate_hz=20.0))
    assert "own rate" in text
    assert "20 Hz" in text


def test_rollouts_that_only_raised_errors_hold_no_control_rate():
    assert "0.0 Hz" not in printed(report_row("e"))


def test_where_depth_is_adaptive_its_mean_stands_beside_the_deepest():
    fixed, adaptive = (
        report_row("s", loops=4, adaptive=how) | {"mean_loops": mean}
        for how, mean in (("none", 4.0), ("chunk:0.01", 2.406))
    )
    assert (loops_text(fixed), loops_text(adaptive)) == ("4", "2.41 of 4")
    assert "2.41 of 4" in printed(fixed, adaptive)
    assert loops_text(report_row("e", loops=4, adaptive="calibrated") | {"mean_loops": None}) == "4"
    assert loops_text(report_row("s", loops=None)) == "–"  # noqa: RUF001 - a dash for people
