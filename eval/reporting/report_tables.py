"""The cells of the page's tables, in words: what tells rows apart, what was measured, stages.

A column that says the same in every row, or that nobody measured, is left out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loopdit.eval.reporting.report_rows import (
    AXES,
    Group,
    axes_of,
    axis_name,
    axis_title,
    value_text,
    values,
)
from loopdit.eval.reporting.table import percent, policy_text
from loopdit.eval.runs.results import Row

_NOTHING = "–"  # noqa: RUF001 - a dash for people
_PLAIN = {
    "delay": "0",
    "variation": "none",
    "fault": "none",
    "rate_hz": 0.0,
    "divide": 1,
    "adaptive": "none",
}


@dataclass(frozen=True)
class Column:
    """A heading, and its cell for each row."""

    title: str
    cells: list[str]


@dataclass(frozen=True)
class Stage:
    """How many of a row's rollouts came at least so far, and their share, 0 to 1."""

    reached: int
    share: float


@dataclass(frozen=True)
class Funnel:
    """`stages` in order, the last is success; for each row what reached each of them."""

    stages: list[str]
    rows: list[list[Stage]]


def condition_columns(rows: Sequence[Row]) -> list[Column]:
    """One for each axis that varies; the depth also where nothing does."""
    shown = axes_of(rows)
    if not shown and rows[0]["loops"] is None:
        return [Column("policy", [policy_text(row) for row in rows])]
    if shown in ([], ["loops"]):
        return [Column("depth", [f"K = {row['loops']}" for row in rows])]
    return [Column(axis_name(axis), [value_text(axis, r) for r in rows]) for axis in shown]


def control_columns(rows: Sequence[Row]) -> list[Column]:
    """The policy, and which delay, rate or variation it met where that differs."""
    shown = [axis for axis in axes_of(rows) if axis in ("delay", "rate_hz", "variation")]
    names = [policy_text(r) + (f", K = {r['loops']}" if r["loops"] else "") for r in rows]
    axes = [Column(axis_name(axis), [value_text(axis, r) for r in rows]) for axis in shown]
    return [Column("policy", names), *axes]


def constants(rows: Sequence[Row]) -> str:
    """What all rows have in common, where that is not the plainest."""
    found: list[str] = []
    for axis in AXES:
        only = values(rows, axis)
        told = axis == "loops" and not axes_of(rows)  # in the first column
        if len(only) == 1 and only[0] != _PLAIN.get(axis) and not told:
            found.append(f"{axis_title(axis)}: {value_text(axis, rows[0])}")
    return "; ".join(found)


def measures(group: Group) -> list[Column]:
    """What a row came to beside its success; what had no verdict is counted apart."""
    cells: list[tuple[str, Callable[[Row], str]]] = [
        ("time to success, s", _seconds),
        ("mean K", lambda row: _number(row["mean_loops"])),
        ("jerk", lambda row: _number(row["jerk"])),
        ("IK rejects", lambda row: _share(row["rejected"])),
        ("deadline misses", lambda row: _share(row["missed"])),
        ("unstable", lambda row: str(row["unstable"])),
        ("errors", lambda row: str(row["errors"])),
        ("restarts", lambda row: str(row["restarts"])),
    ]
    columns = [Column(title, [cell(row) for row in group.rows]) for title, cell in cells]
    return [column for column in columns if set(column.cells) != {_NOTHING}]


def funnel(group: Group) -> Funnel | None:
    """None where the environment has no stages."""
    stages = list(group.rows[0]["stages"])
    if not stages:
        return None
    rows: list[list[Stage]] = []
    for row in group.rows:
        reached = [*(row["stages"].get(stage, 0) for stage in stages), row["successes"]]
        rows.append([Stage(number, number / row["episodes"]) for number in reached])
    return Funnel([*stages, "success"], rows)


def _seconds(row: Row) -> str:
    found = row["time_to_success_s"]
    if found is None:
        return _NOTHING
    return f"{found['p50']:.1f} [{found['p25']:.1f}, {found['p75']:.1f}]"


def _number(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.3g}"


def _share(value: float | None) -> str:
    return _NOTHING if value is None else f"{percent(value)} %"
