"""The rows of eval.json as the page needs them: every field there, grouped, and cut along an axis.

An axis is a field of `Condition`. Rows of older files lack what could not be chosen then; they get
the values that were meant, or None for what nobody measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from loopdit.eval.reporting.table import policy_text
from loopdit.eval.rollouts.condition import Condition
from loopdit.eval.rollouts.policy_sources import BASELINES
from loopdit.eval.runs.results import Row

AXES = tuple(field.name for field in fields(Condition))
_MEASURED_LATER = (
    "time_to_success_s",
    "jerk",
    "border_jerk",
    "rejected",
    "missed",
    "mean_loops",
    "simulator",
    "model_digest",
)
# In a heading, and at an axis where there is room for the unit.
_TITLES = {
    "loops": ("K", "depth K"),
    "steps": ("steps", "denoising steps"),
    "delay": ("delay", "delay, control steps"),
    "execution": ("execution", "how chunks are executed"),
    "execute_horizon": ("executed", "actions executed of a chunk"),
    "rate_hz": ("rate, Hz", "actions a second"),
    "divide": ("divided", "control steps an action is spread over"),
    "variation": ("variation", "variation of the world"),
    "fault": ("fault", "fault of what is seen"),
    "adaptive": ("adaptive", "depth up to K, as far as needed"),
}
_PLAIN = "none"


@dataclass(frozen=True)
class Group:
    """The conditions of one policy in one environment, shallow ones first."""

    title: str
    rows: list[Row]

    @property
    def best(self) -> Row:
        """Most successes; of equals, the least compute, then the one that was named first."""
        return max(self.rows, key=lambda row: (row["success_rate"], -(row["loops"] or 0)))


def completed(row: Row) -> Row:
    """The row with every field that rows of this version have."""
    plain = {name: getattr(Condition, name) for name in AXES if name not in ("loops", "steps")}
    absent = {"clock": "paused", "restarts": 0, "errors": 0, "stages": {}, "videos": []}
    later = dict.fromkeys(_MEASURED_LATER)
    return {**plain, **absent, **later, "rollouts": [], "sequential": False, "plan": "", **row}


def grouped(rows: Sequence[Row], controls: Sequence[Row] = ()) -> tuple[list[Group], list[Row]]:
    """What was evaluated, in the order it was measured, and what it is compared with.

    `controls` are those that ran beside; baselines among `rows` join them, unless there is nothing
    else to evaluate.
    """
    subjects = [row for row in rows if row["kind"] not in BASELINES] or list(rows)
    beside = [row for row in rows if not any(row is one for one in subjects)]
    several = len({row["env"] for row in subjects}) > 1
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in subjects:
        title = f"{policy_text(row)} in {row['env']}" if several else policy_text(row)
        groups.setdefault((row["env"], row["policy"], title), []).append(row)
    by_depth = [
        Group(key[-1], sorted(of_one, key=lambda row: row["loops"] or 0))
        for key, of_one in groups.items()
    ]
    return by_depth, [*beside, *controls]


def values(rows: Sequence[Row], axis: str) -> list[Any]:
    """The different values of `axis`, in the order of the rows; numbers ascend."""
    found = list(dict.fromkeys(row[axis] for row in rows if row[axis] is not None))
    if all(str(value).replace(".", "", 1).isdigit() for value in found):
        return sorted(found, key=float)
    return found


def axes_of(rows: Sequence[Row]) -> list[str]:
    """Axes of which `rows` have several values."""
    return [axis for axis in AXES if len(values(rows, axis)) > 1]


def reference(rows: Sequence[Row]) -> Row:
    """What the others are compared with: nothing amiss, no delay, as far as that was run."""
    plain = {"delay": "0", "variation": "none", "fault": "none", "adaptive": "none"}
    return max(
        rows,
        key=lambda row: sum(row[axis] == value for axis, value in plain.items()),
    )


def along(rows: Sequence[Row], free: Sequence[str], at: Mapping[str, Any]) -> list[Row]:
    """The rows that are like `at` on every axis but `free`."""
    fixed = [axis for axis in AXES if axis not in free]
    return [row for row in rows if all(row[axis] == at[axis] for axis in fixed)]


def axis_name(axis: str) -> str:
    """What a reader calls it, short."""
    return _TITLES[axis][0]


def axis_title(axis: str) -> str:
    """What a reader calls it, with its unit."""
    return _TITLES[axis][1]


def value_text(axis: str, row: Row) -> str:
    """The row's value in words: "2 (200 ms)", "10 Hz", "none"."""
    value = row[axis]
    if value is None:
        return "–"  # noqa: RUF001 - a dash for people
    if axis == "delay" and str(value).isdigit() and value != "0":
        return f"{value} ({1000 * int(value) * row['control']['period_s']:.0f} ms)"
    if axis == "rate_hz":
        return f"{value:g}" if value else f"{1 / row['control']['period_s']:g}"
    return str(value)


def condition_text(row: Row, axes: Sequence[str]) -> str:
    """ "K=2, delay=3": what of `axes` the row has, as comparisons write it; "" for nothing."""
    told = [
        f"{'K' if axis == 'loops' else axis}={row[axis]}"
        for axis in axes
        if row[axis] and row[axis] != _PLAIN
    ]
    return ", ".join(told)


def total_latency_ms(row: Row) -> float | None:
    """Mean time from an observation to the first action that could know of it, on the clock of the
    rollouts; None where it is not known."""
    period_ms = 1000 * row["control"]["period_s"]
    kind, _, rest = str(row["delay"]).partition(":")
    if kind.isdigit():
        return int(kind) * period_ms
    if kind == "uniform":
        return sum(map(int, rest.split("-"))) / 2 * period_ms
    if kind == "normal":
        return float(rest.split(":")[0])
    return row["latency_ms"]["p50"] if kind == "wall" else None
