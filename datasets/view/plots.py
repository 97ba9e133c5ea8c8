"""One element of a vector over the time of an episode, as an inline SVG; colours come from CSS.

Every element has a plot of its own: radians, metres and a gripper's share have no axis in common.
The `cursor` line is moved by the page's script, which needs LEFT, RIGHT and WIDTH for it.
"""

from collections.abc import Sequence
from html import escape

import numpy as np

WIDTH, HEIGHT = 340, 132
LEFT, RIGHT = 66, 8  # margins, pixels
_TOP, _BOTTOM = 8, 22
_MOST_POINTS = 320  # a line is drawn through no more than the plot has pixels


def element_plot(
    values: np.ndarray, period_s: float, limits: Sequence[float], description: str
) -> str:
    """The `<svg>` of `values` (T,), one each `period_s` seconds.

    `limits` are drawn where they are near the values; `description` is read out in its place.
    """
    low, high = _range(values, limits)

    def x(share: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * share

    def y(value: float) -> float:
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * (value - low) / (high - low)

    lower, upper = _told_apart(low, high)
    last = max(1, len(values) - 1)
    points = " ".join(f"{x(step / last):.1f},{y(values[step]):.1f}" for step in _kept(values))
    seconds = (len(values) - 1) * period_s
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(description)}">',
        *(_across("grid", y(value)) for value in (low, high)),
        *(_across("limit", y(value)) for value in limits if low <= value <= high),
        _text(LEFT - 6, _TOP + 8, upper, "end"),
        _text(LEFT - 6, HEIGHT - _BOTTOM, lower, "end"),
        _text(LEFT, HEIGHT - 6, "0 s", "start"),
        _text(WIDTH - RIGHT, HEIGHT - 6, f"{seconds:.3g} s", "end"),
        f'<polyline class="line" points="{points}"/>' if len(values) > 1 else "",
        f'<circle class="line" cx="{x(0):.1f}" cy="{y(values[0]):.1f}" r="3"/>'
        if len(values) == 1
        else "",
        f'<line class="cursor" x1="{LEFT}" x2="{LEFT}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"/>',
        "</svg>",
    ]
    return "".join(parts)


def _range(values: np.ndarray, limits: Sequence[float]) -> tuple[float, float]:
    """What the axis goes from and to: the values with a margin, and the limits close by.

    Rounding errors are no movement: what varies by less than a millionth of its own size or its
    limits' is drawn flat.
    """
    low, high = float(values.min()), float(values.max())
    size = max(abs(low), abs(high), *map(abs, limits), 0.0)
    span = high - low if high - low > 1e-6 * size else max(size, 1e-9) * 0.1
    near = [value for value in limits if low - span / 2 <= value <= high + span / 2]
    return min([low, *near]) - 0.06 * span, max([high, *near]) + 0.06 * span


def _told_apart(low: float, high: float) -> tuple[str, str]:
    """Both with as few digits as show that they differ, 3 at least."""
    digits = 3
    while f"{low:.{digits}g}" == f"{high:.{digits}g}" and digits < 9:
        digits += 1
    return f"{low:.{digits}g}", f"{high:.{digits}g}"


def _kept(values: np.ndarray) -> list[int]:
    """The steps to draw: all, or the lowest and the highest of each part, so that no peak goes."""
    if len(values) <= _MOST_POINTS:
        return list(range(len(values)))
    steps: set[int] = {0, len(values) - 1}
    for part in np.array_split(np.arange(len(values)), _MOST_POINTS // 2):
        steps |= {int(part[values[part].argmin()]), int(part[values[part].argmax()])}
    return sorted(steps)


def _across(kind: str, y: float) -> str:
    return f'<line class="{kind}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
