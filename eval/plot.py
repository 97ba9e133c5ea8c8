"""Success against chunk latency as an inline SVG that takes its colours from the page's CSS.

One point for each depth: across, the median latency with a whisker to the 99th percentile; up, the
success rate with its 95 % interval. Classes: `axis`, `grid`, `series-0`, `series-1`, ...
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

# Wide enough for a desktop, and its letters still readable when a phone scales it down.
_WIDTH, _HEIGHT = 480, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 26, 44
_MOST_TICKS = 6


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
    points = [point for line in series for point in line]
    step = _nice_step(max(point.p99_ms for point in points))
    count = math.ceil(max(point.p99_ms for point in points) / step) or 1
    right_ms = step * count

    def x(ms: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * ms / right_ms

    def y(rate: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * rate

    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="Success rate against chunk latency">'
    ]
    for rate in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(_line(x(0), y(rate), x(right_ms), y(rate), "grid"))
        parts.append(_text(_LEFT - 6, y(rate) + 4, f"{rate:.0%}", "end"))
    for tick in range(count + 1):
        parts.append(_text(x(tick * step), y(0) + 18, f"{tick * step:g}", "middle"))
    parts.append(_line(x(0), y(0), x(right_ms), y(0), "axis"))
    parts.append(_text((x(0) + x(right_ms)) / 2, _HEIGHT - 6, "chunk latency, ms", "middle"))
    for number, line in enumerate(series):
        parts.append(f'<g class="series-{number}">')
        path = " ".join(f"{x(p.p50_ms):.1f},{y(p.rate):.1f}" for p in line)
        parts.append(f'<polyline class="trend" points="{path}"/>')
        for p in line:
            parts.append(_line(x(p.p50_ms), y(p.rate), x(p.p99_ms), y(p.rate), "whisker"))
            parts.append(_line(x(p.p50_ms), y(p.low), x(p.p50_ms), y(p.high), "interval"))
            parts.append(f'<circle cx="{x(p.p50_ms):.1f}" cy="{y(p.rate):.1f}" r="5"/>')
            # Every other line has its names below, where they cannot meet those above.
            beside = y(p.low) + 16 if number % 2 else y(p.high) - 6
            parts.append(_text(x(p.p50_ms), beside, p.label, "middle"))
        parts.append("</g>")
    return "".join([*parts, "</svg>"])


def _nice_step(largest: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that needs at most _MOST_TICKS steps."""
    least = largest / _MOST_TICKS or 1.0
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * m for m in (1, 2, 5, 10) if power * m >= least * (1 - 1e-9))


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
