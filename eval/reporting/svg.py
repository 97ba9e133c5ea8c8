"""Pieces of an inline SVG chart of success rates; colours come from the page's CSS.

A `Frame` maps to pixels: across, a share from 0 to 1 of the axis; up, a success rate. Classes:
`axis`, `grid`, `series-0`, `series-1`, ..., `interval`, `whisker`, `trend`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

_MOST_TICKS = 6
_RATES = (0.0, 0.25, 0.5, 0.75, 1.0)
_GAP = 4
_LETTER, _LINE = 11, 15  # what a letter of the page's bold font takes at most, pixels


@dataclass(frozen=True)
class Frame:
    """Wide enough for a desktop, and its letters still readable when a phone scales it down."""

    width: int = 400
    height: int = 260
    left: int = 46
    right: int = 14
    top: int = 26
    bottom: int = 44

    def x(self, share: float) -> float:
        """Pixels from the left."""
        return self.left + (self.width - self.left - self.right) * share

    def y(self, rate: float) -> float:
        """Pixels from the top."""
        return self.height - self.bottom - (self.height - self.top - self.bottom) * rate

    def axes(self, title: str, ticks: Iterable[tuple[float, str]]) -> list[str]:
        """The grid of rates, and below it `ticks` (share, text) and a title."""
        parts: list[str] = []
        for rate in _RATES:
            parts.append(line(self.x(0), self.y(rate), self.x(1), self.y(rate), "grid"))
            parts.append(text(self.left - 6, self.y(rate) + 4, f"{rate:.0%}", "end"))
        parts += [text(self.x(share), self.y(0) + 18, name, "middle") for share, name in ticks]
        parts.append(line(self.x(0), self.y(0), self.x(1), self.y(0), "axis"))
        parts.append(text((self.x(0) + self.x(1)) / 2, self.height - 6, title, "middle"))
        return parts

    def document(self, label: str, parts: Sequence[str]) -> str:
        """The whole `<svg>`; `label` is what is read out in its place."""
        opening = f'<svg viewBox="0 0 {self.width} {self.height}" role="img" '
        return "".join([f'{opening}aria-label="{escape(label)}">', *parts, "</svg>"])


@dataclass
class Labels:
    """Names beside points, each where it meets none that was placed before."""

    frame: Frame
    _taken: list[tuple[float, float, float]] = field(
        default_factory=list[tuple[float, float, float]]
    )

    def place(self, x: float, above: float, below: float, name: str) -> str:
        """`name` above or below a point's interval, or further away where others are there."""
        half = _LETTER * len(name) / 2
        x = min(max(x, self.frame.left + half), self.frame.width - half)
        spots = [
            spot
            for away in range(6)
            for spot in (above - 6 - away * _LINE, below + 16 + away * _LINE)
            if spot + 2 >= _LINE and spot < self.frame.y(0)
        ]
        free = (spot for spot in spots if not self._meets(x, spot, half))
        y = next(free, above - 6)
        self._taken.append((x, y, half))
        return text(x, y, name, "middle")

    def _meets(self, x: float, y: float, half: float) -> bool:
        return any(
            abs(x - other) < half + wide + _GAP and abs(y - high) < _LINE
            for other, high, wide in self._taken
        )


def scale(largest: float) -> tuple[float, list[float]]:
    """Where an axis from 0 has to end to show `largest`, and its round ticks."""
    step = _nice_step(largest)
    count = math.ceil(largest / step) or 1
    return step * count, [step * number for number in range(count + 1)]


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A `<line>` of the class `kind`."""
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def trend(points: Iterable[tuple[float, float]]) -> str:
    """A `<polyline>`."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline class="trend" points="{path}"/>'


def dot(x: float, y: float, radius: float = 5) -> str:
    """A `<circle>`."""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}"/>'


def text(x: float, y: float, words: str, anchor: str) -> str:
    """A `<text>`."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _nice_step(largest: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that needs at most _MOST_TICKS steps."""
    least = largest / _MOST_TICKS or 1.0
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * m for m in (1, 2, 5, 10) if power * m >= least * (1 - 1e-9))
