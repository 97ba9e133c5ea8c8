"""The table for the terminal: rows that differ can be told apart in it."""

import io

from rich.console import Console
from tests.eval.report_rows import report_row

from loopdit.eval.reporting.table import results_table
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
