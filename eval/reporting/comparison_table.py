"""Comparisons as a table for the terminal, and in words what they left out."""

from collections.abc import Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from loopdit.eval.reporting.table import percent
from loopdit.eval.statistics.comparison import Comparison, p_number
from loopdit.eval.statistics.seed_pairs import LeftOut


def comparison_table(family: Sequence[tuple[str, Comparison]]) -> Table:
    """One line for each (title, comparison), for a terminal of 80 columns."""
    corrected = any(made.comparisons > 1 for _, made in family)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("compared")
    names = ("pairs", "A %", "B %", "only A, B", "B - A [95 %]")
    for name in (*names, "p (Holm)" if corrected else "p", "e-value"):
        table.add_column(name, justify="right", no_wrap=True)
    for title, made in family:
        difference = made.difference
        value, low, high = (
            f"{100 * points:+.0f}" for points in (difference.value, difference.low, difference.high)
        )
        table.add_row(
            escape(title),
            f"{made.pairs}",
            percent(made.rate_a),
            percent(made.rate_b),
            f"{made.only_a}, {made.only_b}",
            escape(f"{value} [{low}, {high}]"),
            p_number(made.p_adjusted),
            f"{made.e_value:.2g}",
        )
    return table


def left_out_text(made: Comparison) -> str:
    """ "Left out: A 3 seeds that the other lacks; B 1 unstable.", or nothing."""
    named = {"A": _counts(made.left_out_a), "B": _counts(made.left_out_b)}
    parts = [f"{name} {', '.join(counts)}" for name, counts in named.items() if counts]
    return f"Left out: {'; '.join(parts)}." if parts else ""


def _counts(left: LeftOut) -> list[str]:
    named = {
        "seeds that the other lacks": left.seeds,
        "unstable": left.unstable,
        "errors": left.errors,
    }
    return [f"{count} {name}" for name, count in named.items() if count]
