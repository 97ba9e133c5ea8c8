"""A panel: one small plot, in the colours of a page that is light or dark, or on white.

In a page colours are CSS variables, so that it is drawn in placeholder colours that are replaced.
Series of ours have colours; what the paper prints is drawn in the colour of the text.
"""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loopdit.eval.statistics.t_test import one_sample

_SERIES = ("#1f6fd0", "#b4510d", "#0f8a6b", "#8a4bb8", "#b0306a", "#7a6a12")
_PLACEHOLDERS = {
    "--ink": "#010203",
    "--line": "#010204",
    "--soft": "#010205",
    **{f"--s{number}": f"#01030{number}" for number in range(len(_SERIES))},
}
_WIDTH, _HEIGHT = 4.3, 3.2  # inches, so small that a phone does not make its letters smaller


@dataclass(frozen=True)
class Palette:
    """Colours of text, of lines behind, of what is less important, of series."""

    ink: str
    line: str
    soft: str
    series: Sequence[str]

    def colour(self, number: int) -> str:
        """Of a series."""
        return self.series[number % len(self.series)]


_PAGE = Palette(
    ink=_PLACEHOLDERS["--ink"],
    line=_PLACEHOLDERS["--line"],
    soft=_PLACEHOLDERS["--soft"],
    series=[_PLACEHOLDERS[f"--s{number}"] for number in range(len(_SERIES))],
)
_WHITE = Palette("#1b1a18", "#d8d4cc", "#66635d", _SERIES)

Draw = Callable[[Axes, Palette], None]


@dataclass(frozen=True)
class Panel:
    """One plot. `name` is unique in a page; `missing` says what of ours is not in it, or is ""."""

    name: str
    title: str
    draw: Draw
    missing: str = ""

    def inline(self) -> str:
        """The `<svg>` to put into a page."""
        svg = self._svg(_PAGE, transparent=True)
        svg = svg[svg.index("<svg") :]
        svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
        svg = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", svg)  # HTML knows them
        svg = svg.replace("xlink:href", "href")
        svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg)  # as wide as the page allows
        svg = re.sub(r'id="([\w.]+)"', rf'id="{self.name}-\1"', svg)
        svg = re.sub(r'href="#([\w.]+)"', rf'href="#{self.name}-\1"', svg)
        svg = re.sub(r"url\(#([\w.]+)\)", rf"url(#{self.name}-\1)", svg)
        for variable, colour in _PLACEHOLDERS.items():
            svg = svg.replace(colour, f"var({variable})")
        return svg.replace("<svg", f'<svg role="img" aria-label="{self.title}"', 1)

    def file(self) -> str:
        """A whole SVG file, on white."""
        return self._svg(_WHITE, transparent=False)

    def _svg(self, palette: Palette, transparent: bool) -> str:
        figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
        axes = figure.add_subplot()
        figure.patch.set_alpha(0 if transparent else 1)
        axes.patch.set_alpha(0)
        axes.set_axisbelow(True)
        axes.tick_params(colors=palette.ink, labelsize=9)
        axes.tick_params(which="minor", colors=palette.ink)
        for name, spine in axes.spines.items():
            spine.set_visible(name in ("left", "bottom"))
            spine.set_color(palette.ink)
        axes.xaxis.label.set_color(palette.ink)
        axes.yaxis.label.set_color(palette.ink)
        axes.grid(axis="y", color=palette.line, linewidth=0.8)
        self.draw(axes, palette)
        if self.missing and not axes.has_data():
            axes.set_axis_off()
            axes.text(0.5, 0.5, self.missing, color=palette.soft, ha="center", va="center")
        elif self.missing:
            # Above the plot, where it hides no data.
            axes.set_title(self.missing, fontsize=9, color=palette.soft, loc="left")
        handles, _ = axes.get_legend_handles_labels()
        if handles:
            figure.legend(
                loc="outside lower center",
                ncols=2,
                frameon=False,
                labelcolor=palette.ink,
                fontsize=9,
            )
        out = io.StringIO()
        with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": self.name}):
            figure.savefig(out, format="svg", metadata={"Date": None})
        return out.getvalue()


def interval_bar(values: np.ndarray) -> tuple[float, float, float]:
    """(mean, below, above) of one number a seed (n,): distances to its 95 % interval; 0 where seeds
    have none."""
    mean = float(np.mean(values))
    if len(values) < 2 or np.ptp(values) == 0:
        return mean, 0.0, 0.0
    low, high = one_sample(values).interval()
    return mean, mean - low, high - mean


def seed_points(
    axes: Axes, places: Sequence[float], columns: Sequence[np.ndarray], colour: str, label: str
) -> None:
    """At each place the seeds of a column, their mean and its interval, joined by a line."""
    bars = [interval_bar(values) for values in columns]
    for place, values in zip(places, columns, strict=True):
        axes.plot([place] * len(values), values, "o", color=colour, alpha=0.35, markersize=3)
    axes.errorbar(
        places,
        [mean for mean, _, _ in bars],
        yerr=[[below for _, below, _ in bars], [above for _, _, above in bars]],
        color=colour,
        marker="o",
        markersize=5,
        linewidth=1.2,
        capsize=3,
        label=label,
    )


def printed_points(
    axes: Axes,
    places: Sequence[float],
    values: Sequence[float],
    palette: Palette,
    label: str = "paper",
    errors: Sequence[float] | None = None,
) -> None:
    """What the paper prints, with its +- where it has one."""
    axes.errorbar(
        places,
        values,
        yerr=errors,
        color=palette.ink,
        marker="D",
        markersize=5,
        markerfacecolor="none",
        linestyle="--",
        linewidth=1,
        capsize=3,
        label=label,
    )


def reference_line(axes: Axes, value: float, palette: Palette) -> None:
    """A dotted line across, such as at a ratio of 1."""
    axes.axhline(value, color=palette.soft, linewidth=1, linestyle=":")
