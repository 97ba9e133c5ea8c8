"""The pictures of a benchmark, by matplotlib: SVG for the page, PNG for everywhere else.

In the page colours follow its light or dark theme, so the SVG is drawn in placeholder colours that
are replaced by the page's CSS variables. Pure functions of the rows of `bench.json`.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

Row = dict[str, Any]

_WIDTH, _HEIGHT = 4.3, 3.4  # inches, so small that a phone does not make its letters smaller
_SERIES = ("#1f6fd0", "#b4510d", "#0f8a6b", "#8a4bb8", "#b0306a", "#7a6a12")
_FAR_APART = 8
_MARKERS = "osD^vPX*<>"
_LINES = {"fp32": "-", "bf16": "-.", "fp16": (0, (6, 2)), "int8": (0, (1, 1))}
_GAP = 4  # points, between a bar and its number
# What an SVG is drawn in, for each variable of the page.
_PLACEHOLDERS = {
    "--ink": "#010203",
    "--line": "#010204",
    **{f"--s{number}": f"#01030{number}" for number in range(len(_SERIES))},
}


@dataclass(frozen=True)
class _Palette:
    ink: str
    line: str
    series: Sequence[str]

    def colour(self, number: int) -> str:
        return self.series[number % len(self.series)]


_PAGE = _Palette(
    _PLACEHOLDERS["--ink"],
    _PLACEHOLDERS["--line"],
    [_PLACEHOLDERS[f"--s{number}"] for number in range(len(_SERIES))],
)
_PAPER = _Palette("#1b1a18", "#d8d4cc", _SERIES)


def latency_svg(rows: Sequence[Row], name: str) -> str:
    """p50 against K of rows of one (steps, batch), with products alone and floor below them.

    `name` is unique in the page: ids begin with it.
    """
    return _svg(_latency(rows, _PAGE), name)


def latency_png(rows: Sequence[Row]) -> bytes:
    """`latency_svg`, on white."""
    return _png(_latency(rows, _PAPER))


def distance_svg(rows: Sequence[Row], name: str) -> str:
    """How long each back end takes at one work, of what parts, beside products alone and floor;
    `name` as above."""
    return _svg(_distance(rows, _PAGE), name)


def distance_png(rows: Sequence[Row]) -> bytes:
    """`distance_svg`, on white."""
    return _png(_distance(rows, _PAPER))


def _latency(rows: Sequence[Row], palette: _Palette) -> Figure:
    series: dict[str, list[Row]] = {}
    for row in rows:
        series.setdefault(f"{row['backend']} {row['precision']}", []).append(row)
    figure, axes = _figure(palette, _HEIGHT + 0.1 * len(series))  # the legend grows with them
    backends = list(dict.fromkeys(row["backend"] for row in rows))
    for name, points in series.items():
        points = sorted(points, key=lambda row: row["loops"])
        # A back end has a colour and a marker, a precision a line: what belongs together looks so.
        number, precision = backends.index(points[0]["backend"]), points[0]["precision"]
        loops = [row["loops"] for row in points]
        p50 = [row["p50_ms"] for row in points]
        above = [row["p90_ms"] - row["p50_ms"] for row in points]
        axes.errorbar(
            loops,
            p50,
            yerr=[[0] * len(loops), above],
            label=name,
            color=palette.colour(number),
            marker=_MARKERS[number % len(_MARKERS)],
            linestyle=_LINES.get(precision, "-."),
            markerfacecolor=None if precision == "fp32" else "none",
            markersize=5,
            linewidth=1.4,
            elinewidth=0.8,
            capsize=2,
        )
    for field, style, label in (
        ("products_p50_ms", "--", "products alone"),
        ("floor_ms", ":", "floor"),
    ):
        for precision in dict.fromkeys(row["precision"] for row in rows):
            least = {
                row["loops"]: row[field]
                for row in rows
                if row["precision"] == precision and row.get(field) is not None
            }
            if least:
                loops = sorted(least)
                axes.plot(
                    loops,
                    [least[k] for k in loops],
                    style,
                    color=palette.ink,
                    linewidth=1.2,
                    alpha=1.0 if precision == "fp32" else 0.5,
                    label=f"{label} {precision}",
                )
    axes.set_xticks(sorted({row["loops"] for row in rows}))
    axes.set_xlabel("loops K")
    axes.set_ylabel("chunk, ms")
    shown = [row["p50_ms"] for row in rows]
    if max(shown) > _FAR_APART * min(shown):  # else the slow one presses the others to the ground
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.set_ylim(bottom=0)
    axes.grid(axis="y", color=palette.line, linewidth=0.8)
    _legend(axes, palette)
    return figure


def _distance(rows: Sequence[Row], palette: _Palette) -> Figure:
    rows = sorted(rows, key=lambda row: -row["p50_ms"])
    figure, axes = _figure(palette, height=1.6 + 0.36 * len(rows))
    names = [f"{row['backend']} {row['precision']}" for row in rows]
    for place, row in enumerate(rows):
        encode = row["encode_p50_ms"]
        if encode is None:
            axes.barh(place, row["p50_ms"], color=palette.colour(2), height=0.6)
        else:
            axes.barh(place, encode, color=palette.colour(0), height=0.6)
            rest = row["p50_ms"] - encode
            axes.barh(place, rest, left=encode, color=palette.colour(1), height=0.6)
        right = row["p50_ms"]  # of everything that the number must not lie on
        for field, style in (("products_p50_ms", "--"), ("floor_ms", ":")):
            if row.get(field) is not None:
                axes.plot([row[field]] * 2, [place - 0.42, place + 0.42], style, color=palette.ink)
                right = max(right, row[field])
        axes.annotate(
            f"{row['p50_ms']:.2f}",
            (right, place),
            (_GAP, 0),
            textcoords="offset points",
            va="center",
            color=palette.ink,
            size=10,
        )
    cut = {row["encode_p50_ms"] is not None for row in rows}
    labels = (("encode", True), ("denoise", True), ("whole chunk", False))
    for number, (label, needed) in enumerate(labels):
        if needed in cut:
            axes.barh([0], [0], color=palette.colour(number), label=label)
    if any(row.get("floor_ms") is not None for row in rows):
        axes.plot([], [], "--", color=palette.ink, label="products alone")
        axes.plot([], [], ":", color=palette.ink, label="floor")
    axes.set_yticks(range(len(rows)), names)
    axes.set_xlim(0, 1.18 * max(row["p50_ms"] for row in rows))
    axes.set_xlabel("p50, ms")
    axes.grid(axis="x", color=palette.line, linewidth=0.8)
    _legend(axes, palette)
    return figure


def _figure(palette: _Palette, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.set_axisbelow(True)
    axes.tick_params(colors=palette.ink, labelsize=10)
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(palette.ink)
    axes.xaxis.label.set_color(palette.ink)
    axes.yaxis.label.set_color(palette.ink)
    return figure, axes


def _legend(axes: Axes, palette: _Palette) -> None:
    """Below the axes, where it hides nothing."""
    axes.figure.legend(
        loc="outside lower center", ncols=2, frameon=False, labelcolor=palette.ink, fontsize=10
    )


def _png(figure: Figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=160, facecolor="white")
    return out.getvalue()


def _svg(figure: Figure, name: str) -> str:
    """The `<svg>` element to put into a page: no addresses, and ids that begin with `name`."""
    import matplotlib as mpl

    out = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", svg)  # HTML knows them
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg)  # as wide as the page allows
    svg = re.sub(r'id="([\w.]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'href="#([\w.]+)"', rf'href="#{name}-\1"', svg)
    svg = re.sub(r"url\(#([\w.]+)\)", rf"url(#{name}-\1)", svg)
    for variable, colour in _PLACEHOLDERS.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg
