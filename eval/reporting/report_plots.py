"""Which plots an evaluation gets: one for each axis of which it has several values, no others.

A plot varies its own axis and one more, for which there are lines; what else varied stays at the
reference, so that each comparison is of one thing. Knows nothing of pixels (`plot`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from loopdit.eval.reporting.plot import (
    Point,
    Series,
    WorkingPoint,
    frontier,
    success_against_latency,
    success_by_value,
)
from loopdit.eval.reporting.report_rows import (
    AXES,
    Group,
    along,
    axes_of,
    axis_name,
    axis_title,
    condition_text,
    reference,
    total_latency_ms,
    value_text,
    values,
)
from loopdit.eval.runs.results import Row

# Names that mean nothing as places on a line; they get bars with intervals instead.
_NAMED = ("variation", "fault", "adaptive")
_LINES = ("loops", "execution", "steps")  # what lines are for, the first that varies
_PANELS = ("execution", "rate_hz")


@dataclass(frozen=True)
class Figure:
    """An SVG with its heading, a legend of (class, name), and what is to be seen."""

    title: str
    svg: str
    caption: str
    legend: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])


@dataclass(frozen=True)
class Forest:
    """Bars with intervals, one a condition, against the rate of a reference condition."""

    title: str
    bars: list[tuple[str, Row]]
    nominal: Row


@dataclass(frozen=True)
class Choice:
    """The best condition at one total latency, and those that its interval overlaps with."""

    total_ms: float
    row: Row
    name: str
    others: list[str]


def figures(groups: Sequence[Group], controls: Sequence[Row]) -> list[Figure]:
    """Everything that is drawn, the most general first."""
    found = [_latency(groups)]
    for group in groups:
        varied = axes_of(group.rows)
        # Without delay the ways of execution are alike: they are lines of that plot.
        elsewhere = ["loops", *_NAMED, *(["execution"] if "delay" in varied else [])]
        for axis in varied:
            if axis not in elsewhere:
                found += _by_axis(group, axis, controls, len(groups) > 1)
    return [figure for figure in found if figure is not None]


def forests(group: Group) -> list[Forest]:
    """Robustness: for each axis of names, what each of its values leaves of the success."""
    nominal = reference(group.rows)
    found: list[Forest] = []
    both = [axis for axis in _NAMED if axis in axes_of(group.rows)]
    for axis in both:
        free = [axis, *(["loops"] if len(values(group.rows, "loops")) > 1 else [])]
        bars = [
            (", ".join(filter(None, [condition_text(row, free[1:]), str(row[axis])])), row)
            for row in sorted(along(group.rows, free, nominal), key=lambda row: row["loops"] or 0)
        ]
        found.append(Forest(axis_title(axis), bars, nominal))
    together = [row for row in group.rows if all(row[axis] != nominal[axis] for axis in both)]
    if len(both) > 1 and together:
        axes = [axis for axis in axes_of(group.rows) if axis not in both]
        bars = [
            (", ".join(filter(None, [condition_text(row, axes), *(row[a] for a in both)])), row)
            for row in sorted(together, key=lambda row: row["success_rate"])
        ]
        found.append(Forest("variation and fault together", bars, nominal))
    return found


def choices(group: Group) -> list[Choice]:
    """The best condition at each total latency, ascending; none where only one was run."""
    axes = [axis for axis in axes_of(group.rows) if axis not in ("delay", *_NAMED)]
    at_latency: dict[float, list[Row]] = {}
    for row in _undisturbed(group):
        total_ms = total_latency_ms(row)
        if total_ms is not None:
            at_latency.setdefault(total_ms, []).append(row)
    if len(at_latency) < 2:
        return []
    found: list[Choice] = []
    for total_ms, rows in sorted(at_latency.items()):
        best = Group("", rows).best
        level = [
            condition_text(row, axes)
            for row in rows
            if row is not best and row["ci95"][1] >= best["ci95"][0]
        ]
        found.append(Choice(total_ms, best, condition_text(best, axes), level))
    return found


def frontier_figure(group: Group) -> str:
    """The SVG to `choices`, with every other condition as a dot; "" without choices."""
    best = choices(group)
    if not best:
        return ""
    points: list[WorkingPoint] = []
    for row in _undisturbed(group):
        total_ms = total_latency_ms(row)
        if total_ms is None:
            continue
        name = next((choice.name for choice in best if choice.row is row), None)
        low, high = row["ci95"]
        rate, best_here = row["success_rate"], name is not None
        label = (name or "").replace("execution=", "").replace(", ", " ")
        points.append(WorkingPoint(label, rate, low, high, total_ms, best_here))
    return frontier(points)


def _undisturbed(group: Group) -> list[Row]:
    nominal = reference(group.rows)
    return along(group.rows, [axis for axis in AXES if axis not in _NAMED], nominal)


def _latency(groups: Sequence[Group]) -> Figure | None:
    """Success against what a chunk costs, where depth or denoising steps say what it costs."""
    lines: list[list[Point]] = []
    names: list[str] = []
    for group in groups:
        rows = along(group.rows, ("loops", "steps"), reference(group.rows))
        axes = [axis for axis in ("loops", "steps") if len(values(rows, axis)) > 1]
        points = [
            Point(
                label=_cost_text(row, axes) or group.title,
                rate=row["success_rate"],
                low=row["ci95"][0],
                high=row["ci95"][1],
                p50_ms=row["latency_ms"]["p50"],
                p99_ms=row["latency_ms"]["p99"],
            )
            for row in rows
            if row["latency_ms"]["p50"] is not None
        ]
        if points:
            lines.append(sorted(points, key=lambda point: point.p50_ms))
            names.append(group.title)
    if not any(len(points) > 1 for points in lines):
        return None
    subject = groups[0]
    elsewhere = [axis for axis in axes_of(subject.rows) if axis not in ("loops", "steps")]
    caption = (
        "Dot: success rate at the median latency of a chunk on this machine. Upright bar: 95 % "
        f"interval. Line to the right: latency up to the 99th percentile. "
        f"{_here(reference(subject.rows), elsewhere)}"
    )
    legend = [(f"series-{number % 6}", name) for number, name in enumerate(names)]
    return Figure(
        title="Success against the latency of a chunk",
        svg=success_against_latency(lines),
        caption=caption.strip(),
        legend=legend if len(names) > 1 else [],
    )


def _cost_text(row: Row, axes: Sequence[str]) -> str:
    """ "K=2", "5 steps", or "K=2, 5" where both differ."""
    if axes == ["steps"]:
        return f"{row['steps']} steps"
    return condition_text(row, axes).replace("steps=", "")


def _by_axis(group: Group, axis: str, controls: Sequence[Row], named: bool) -> list[Figure]:
    """Success over one axis; a panel for each value of a third one that is worth it."""
    varied = axes_of(group.rows)
    lines = next((one for one in _LINES if one in varied and one != axis), None)
    panels = next((one for one in _PANELS if one in varied and one not in (axis, lines)), None)
    at = reference(group.rows)
    found: list[Figure] = []
    for value in values(group.rows, panels) if panels else [None]:
        fixed = {**at, **({panels: value} if panels else {})}
        rows = along(group.rows, [axis, *([lines] if lines else [])], fixed)
        if len(values(rows, axis)) < 2:
            continue
        figure = _lines(rows, axis, lines, _expert(controls, axis, fixed))
        others = [one for one in varied if one not in (axis, lines, panels)]
        caption = f"{figure.caption} {_here(fixed, others)}".strip()
        where = [group.title] if named else []
        where += [condition_text(fixed, [panels])] if panels else []
        title = f"Success by {axis_name(axis)}" + (f": {', '.join(where)}" if where else "")
        found.append(Figure(title, figure.svg, caption, figure.legend))
    return found


def _here(row: Row, axes: Sequence[str]) -> str:
    """What else was varied, and is not in this plot."""
    told = condition_text(row, axes)
    return f"Here: {told}." if told else ""


def _lines(rows: Sequence[Row], axis: str, lines: str | None, expert: Sequence[Row]) -> Figure:
    places = values(rows, axis)
    ticks = [value_text(axis, next(row for row in rows if row[axis] == v)) for v in places]
    ticks = [tick.partition(" (")[0] for tick in ticks]
    series: list[Series] = []
    legend: list[tuple[str, str]] = []
    for number, value in enumerate(values(rows, lines) if lines else [None]):
        of_one = [row for row in rows if not lines or row[lines] == value]
        series.append(_series(of_one, axis, places))
        if lines:
            legend.append((f"series-{number % 6}", condition_text(of_one[0], [lines])))
    if len(expert) > 1:
        series.append(Series(_series(expert, axis, places).points, control=True))
        legend.append(("control", "expert"))
    title = axis_title(axis)
    if axis == "delay":
        title += f" of {1000 * rows[0]['control']['period_s']:g} ms"
    return Figure(
        title="",
        svg=success_by_value(ticks, series, title),
        caption="Dot: success rate. Upright bar: its 95 % interval. Where bars overlap widely, "
        "the order of the dots may be chance.",
        legend=legend,
    )


def _series(rows: Sequence[Row], axis: str, places: Sequence[Any]) -> Series:
    points = [
        (places.index(row[axis]), row["success_rate"], row["ci95"][0], row["ci95"][1])
        for row in rows
        if row[axis] in places
    ]
    return Series(sorted(points))


def _expert(controls: Sequence[Row], axis: str, at: Row) -> list[Row]:
    """The expert's rows over `axis`, which has no dial and executes in its own way."""
    if axis not in ("delay", "rate_hz"):
        return []
    same = [one for one in ("rate_hz", "variation") if one != axis]
    return [
        row
        for row in controls
        if row["kind"] == "expert"
        and row["env"] == at["env"]
        and all(row[one] == at[one] for one in same)
    ]
