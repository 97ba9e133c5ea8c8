"""Results in words and as a table for the terminal; the report writes its numbers the same way."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from loopdit.eval.rollouts.condition import Condition
from loopdit.eval.statistics.matching import varying

Row = dict[str, Any]

_NOTHING = "–"  # noqa: RUF001 - a dash for people
# What a reader calls them; the JSON keeps what the user typed.
_KIND_NAMES = {
    "served": "served policy",
    "openpi": "openpi policy",
}


def policy_text(row: Row) -> str:
    """How people call the policy of a row."""
    return str(row["label"] or _KIND_NAMES.get(row["kind"], row["kind"]))


def loops_text(row: Row) -> str:
    """ "3"; "2.41 of 3", the mean, where each chunk took as many as it needed; or a dash for a
    policy without a dial."""
    if row["loops"] is None:
        return _NOTHING
    mean = row.get("mean_loops")
    if row.get("adaptive", Condition.adaptive) == Condition.adaptive or mean is None:
        return str(row["loops"])
    return f"{mean:.2f} of {row['loops']}"


def success_text(row: Row) -> str:
    """ "47/50"."""
    return f"{row['successes']}/{row['episodes']}"


def interval_text(row: Row) -> str:
    """ "94 % [84, 98]": the rate and its 95 % interval in percent."""
    low, high = row["ci95"]
    return f"{percent(row['success_rate'])} % [{percent(low)}, {percent(high)}]"


def percent(share: float) -> str:
    """Whole percents; 0 and 100 only for exactly none and all."""
    rounded = round(100 * share)
    if 0 < share < 1:
        rounded = min(99, max(1, rounded))
    return str(rounded)


def milliseconds(value: float | None) -> str:
    """Two significant digits or more: 0.031, 8.4, 123; a dash where nothing was timed."""
    if value is None:
        return _NOTHING
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def control_text(row: Row) -> str:
    """ "10.0 Hz, 100 % on time": the control rate reached and the share of ticks in time."""
    control = row["control"]
    if not control["ticks"]:  # nothing but errors
        return _NOTHING
    return f"{control['rate_hz']:.1f} Hz, {percent(control['on_time'])} % on time"


def results_table(rows: Sequence[Row], title: str) -> Table:
    """One line a row, for a terminal of 80 columns."""
    table = Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("policy", overflow="fold")
    for name in ("K", "success", "rate [95 %]", "p50 ms", "p99 ms", "control held"):
        table.add_column(name, justify="right", no_wrap=True)
    keys = varying(rows)
    for row in rows:
        told = [_told(key, row[key]) for key in keys if row.get(key) is not None]
        table.add_row(
            escape(", ".join([policy_text(row), *told])),
            loops_text(row),
            success_text(row),
            # Brackets are rich's markup.
            escape(interval_text(row)),
            milliseconds(row["latency_ms"]["p50"]),
            milliseconds(row["latency_ms"]["p99"]),
            control_text(row).removesuffix(" on time"),
        )
    return table


def _told(key: str, value: Any) -> str:
    """ "delay=2", "naive": a name where the value does not say what it is of."""
    if key == "rate_hz":
        return f"{value:g} Hz" if value else "own rate"
    return str(value) if key in ("execution", "variation") else f"{key}={value}"
