"""Success against a latency as an inline SVG: of a chunk, or from seeing to acting.

One point for each condition: across, a latency, with a whisker to its 99th percentile where it was
timed; up, the success rate with its 95 % interval.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from loopdit.eval.reporting.svg import Frame, Labels, dot, line, scale, trend


@dataclass(frozen=True)
class Point:
    """One depth of one policy; rates from 0 to 1, latencies in milliseconds."""

    label: str
    rate: float
    low: float
    high: float
    p50_ms: float
    p99_ms: float


def success_against_latency(series: Sequence[Sequence[Point]]) -> str:
    """The `<svg>` of one line of points for each policy."""
    frame = Frame()
    right_ms, ticks = scale(max(point.p99_ms for line in series for point in line))

    def x(ms: float) -> float:
        return frame.x(ms / right_ms)

    y = frame.y
    labels = Labels(frame)
    parts = frame.axes("chunk latency, ms", [(tick / right_ms, f"{tick:g}") for tick in ticks])
    for number, points in enumerate(series):
        parts.append(f'<g class="series-{number % 6}">')
        parts.append(trend((x(p.p50_ms), y(p.rate)) for p in points))
        for p in points:
            parts.append(line(x(p.p50_ms), y(p.rate), x(p.p99_ms), y(p.rate), "whisker"))
            parts.append(line(x(p.p50_ms), y(p.low), x(p.p50_ms), y(p.high), "interval"))
            parts.append(dot(x(p.p50_ms), y(p.rate)))
            parts.append(labels.place(x(p.p50_ms), y(p.high), y(p.low), p.label))
        parts.append("</g>")
    return frame.document("Success rate against chunk latency", parts)


@dataclass(frozen=True)
class WorkingPoint:
    """A condition at its total latency, milliseconds. best: none at the same latency succeeded
    more often."""

    label: str
    rate: float
    low: float
    high: float
    total_ms: float
    best: bool


def frontier(points: Sequence[WorkingPoint]) -> str:
    """The `<svg>` of all working points; the best at each latency are joined and named."""
    frame = Frame()
    right_ms, ticks = scale(max(point.total_ms for point in points))

    def x(ms: float) -> float:
        return frame.x(ms / right_ms)

    y = frame.y
    labels = Labels(frame)
    parts = frame.axes(
        "total latency, from seeing to acting, ms", [(t / right_ms, f"{t:g}") for t in ticks]
    )
    parts.append('<g class="rest">')
    parts += [dot(x(p.total_ms), y(p.rate), 4) for p in points if not p.best]
    parts.append('</g><g class="series-0">')
    best = sorted((p for p in points if p.best), key=lambda p: p.total_ms)
    parts.append(trend((x(p.total_ms), y(p.rate)) for p in best))
    for p in best:
        parts.append(line(x(p.total_ms), y(p.low), x(p.total_ms), y(p.high), "interval"))
        parts.append(dot(x(p.total_ms), y(p.rate)))
        parts.append(labels.place(x(p.total_ms), y(p.high), y(p.low), p.label))
    parts.append("</g>")
    return frame.document("Best success rate at each total latency", parts)


@dataclass(frozen=True)
class Series:
    """A line over the values of an axis: (place of the value, rate, low, high) of each point.

    control: not the policy but what it is measured against.
    """

    points: Sequence[tuple[int, float, float, float]]
    control: bool = False


def success_by_value(values: Sequence[str], series: Sequence[Series], title: str) -> str:
    """The `<svg>` of the success rate at each of `values`, evenly spaced, for each of `series`.

    Series lie a little beside each other, so that equal ones can all be seen.
    """
    frame = Frame()
    places = [(place + 0.5) / len(values) for place in range(len(values))]
    letters = int(46 / len(values))  # what fits side by side
    ticks = [value if len(value) <= letters else f"{value[: letters - 1]}…" for value in values]
    parts = frame.axes(title, zip(places, ticks, strict=True))
    y = frame.y
    apart = min(9.0, 0.5 * (frame.x(1) - frame.x(0)) / len(values) / max(1, len(series)))
    colours = 0
    for number, one in enumerate(series):
        beside = apart * (number - (len(series) - 1) / 2)
        kind = "control" if one.control else f"series-{colours % 6}"
        colours += not one.control
        parts.append(f'<g class="{kind}">')
        parts.append(trend((frame.x(places[place]) + beside, y(p)) for place, p, *_ in one.points))
        for place, rate, low, high in one.points:
            x = frame.x(places[place]) + beside
            parts += [line(x, y(low), x, y(high), "interval"), dot(x, y(rate), 4.5)]
        parts.append("</g>")
    return frame.document(f"Success rate by {title}", parts)
