"""A picture of a canvas: what lies where on its grid, and which region attends to which.

Knows layouts and topologies, and nothing of models. Arrows show the way of information, from the
region that is attended to, to the region that attends: against the direction of a `Connection`,
whose source asks its target.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from loopdit.errors import ConfigError
from loopdit.policy.canvas.layout import CanvasLayout
from loopdit.policy.canvas.topology import CanvasTopology, Connection

_FORMATS = (".svg", ".png")
_EMPTY = "#f1f1f1"
_INK = "#333333"
_PANEL = 4.6  # inches, the side of the graph
_CELL = 0.34  # inches, the side of a position
_SHRINK = 17  # points between an arrow's end and the middle of its region

_PLAIN = "weight 1, all times"

Point = tuple[float, float]


class _Edge(NamedTuple):
    """All that goes from one region to another: the summed weight, and what is said of it."""

    weight: float
    label: str


def draw_canvas(
    path: str | Path, layout: CanvasLayout, topology: CanvasTopology, title: str = ""
) -> Path:
    """Write the picture of a layout and a topology to a .svg or .png file; returns its path.

    Raises ConfigError for another ending, and for a topology of regions that the layout has not.
    """
    path = Path(path)
    if path.suffix not in _FORMATS:
        raise ConfigError(f"cannot draw into {path}: use a name ending in {' or '.join(_FORMATS)}.")
    topology.require_known(layout)
    # Imported here: training and serving need no plots. Without pyplot, which would open windows.
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    depth, height, width = layout.size
    grid_width = _CELL * (depth * (width + 1))
    grid_height = _CELL * (height + 2)
    figure = Figure(
        figsize=(max(grid_width, 7.0) + 0.6, grid_height + _PANEL + 0.9), layout="constrained"
    )
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title, color=_INK)
    above, below = figure.subplots(2, 1, height_ratios=(grid_height, _PANEL))
    colours = _colours(layout)
    _draw_grid(above, layout, colours)
    _draw_graph(below, layout, topology, colours)
    # Words stay words in an .svg, and the same picture is the same file.
    settled: Any = {"svg.fonttype": "none", "svg.hashsalt": "canvas"}
    metadata = {"Date": None} if path.suffix == ".svg" else None
    with rc_context(settled):
        figure.savefig(path, dpi=140, metadata=metadata)
    return path


def _colours(layout: CanvasLayout) -> Mapping[str, Any]:
    """One a region, apart from each other; the same for the grid and the graph."""
    from matplotlib import colormaps

    table = colormaps["tab10" if len(layout.names) <= 10 else "tab20"]
    return {name: table(i % table.N) for i, name in enumerate(layout.names)}


def _draw_grid(axes: Any, layout: CanvasLayout, colours: Mapping[str, Any]) -> None:
    """The slices in time, side by side; outputs are hatched."""
    from matplotlib.patches import Patch, Rectangle

    depth, height, width = layout.size
    for t in range(depth):
        left = t * (width + 1)
        axes.text(left + width / 2, -0.35, f"t = {t}", ha="center", color=_INK, fontsize=9)
        for y in range(height):
            for x in range(width):
                axes.add_patch(
                    Rectangle((left + x, y), 1, 1, facecolor=_EMPTY, edgecolor="white", linewidth=1)
                )
    for region in layout.regions:
        hatch = "////" if region.name in layout.outputs else None
        for t, y, x in region.places():
            axes.add_patch(
                Rectangle(
                    (t * (width + 1) + x, y),
                    1,
                    1,
                    facecolor=colours[region.name],
                    edgecolor="white",
                    linewidth=1,
                    hatch=hatch,
                    gid=f"{region.name}@{t},{y},{x}",
                )
            )
    axes.set_xlim(-0.2, depth * (width + 1) - 0.8)
    axes.set_ylim(height + 0.2, -1.2)
    axes.set_aspect("equal")
    axes.axis("off")
    entries = [
        Patch(
            facecolor=colours[region.name],
            edgecolor="white",
            hatch="////" if region.name in layout.outputs else None,
            label=f"{region.name} ({len(region)})",
        )
        for region in layout.regions
    ]
    axes.legend(
        handles=entries,
        loc="upper center",
        bbox_to_anchor=(0.5, 0.02),
        ncols=min(4, len(entries)),
        frameon=False,
        fontsize=8,
        title="region (positions); hatched: noised and predicted",
        title_fontsize=8,
    )


def _draw_graph(
    axes: Any, layout: CanvasLayout, topology: CanvasTopology, colours: Mapping[str, Any]
) -> None:
    """Regions on a circle, an arrow for each connection, a ring for self-attention.

    Two that differ in direction alone are one arrow with two heads.
    """
    names = layout.names
    angle = {name: math.pi / 2 - 2 * math.pi * i / len(names) for i, name in enumerate(names)}
    at = {name: (math.cos(angle[name]), math.sin(angle[name])) for name in names}
    edges = _edges(topology)
    # What most connections have is said once, below; on an arrow stands what sets it apart.
    said = [edge.label for edge in edges.values()]
    usual = max(said, key=said.count, default="")
    for (source, target), edge in edges.items():
        back = edges.get((target, source))
        if source == target:
            _draw_ring(axes, at[source], edge, colours[source]).set_gid(f"ring {source}")
            continue
        both = back == edge
        if both and source > target:
            continue  # drawn as the second head of the other
        bent = 0.0 if both or back is None else 0.12
        colour = _INK if both else colours[target]
        arrow = _draw_arrow(axes, at[target], at[source], edge, colour, bent, both)
        arrow.set_gid(f"arrow {target} {'and' if both else 'to'} {source}")
        if edge.label != usual:
            _write_on_arrow(axes, at[target], at[source], bent, edge.label)
    for name in names:
        own = edges.get((name, name))
        itself = "" if own is None or own.label == usual else f"(itself: {own.label})"
        _draw_region(axes, f"{name}\n{itself}".strip(), at[name], colours[name])
    note = "arrow: information flows from the region attended to; ring: a region attends to itself"
    if usual not in ("", _PLAIN):
        note += f"\nwhere nothing else is said: {usual}"
    axes.text(0, -1.42, note, ha="center", va="top", color=_INK, fontsize=8)
    axes.set_xlim(-2.0, 2.0)
    axes.set_ylim(-1.6, 1.35)
    axes.set_aspect("equal")
    axes.axis("off")


def _edges(topology: CanvasTopology) -> dict[tuple[str, str], _Edge]:
    """By source and target: several connections of the same two regions are one."""
    joined: dict[tuple[str, str], list[Connection]] = {}
    for connection in topology.connections:
        if connection.weight:
            joined.setdefault((connection.source, connection.target), []).append(connection)
    return {
        ends: _Edge(sum(c.weight for c in several), " + ".join(map(_label, several)))
        for ends, several in joined.items()
    }


def _draw_arrow(
    axes: Any, start: Point, end: Point, edge: _Edge, colour: Any, bent: float, both_ways: bool
) -> Any:
    from matplotlib.patches import FancyArrowPatch

    return axes.add_patch(
        FancyArrowPatch(
            start,
            end,
            connectionstyle=f"arc3,rad={bent}",
            arrowstyle="<|-|>" if both_ways else "-|>",
            mutation_scale=11,
            shrinkA=_SHRINK,
            shrinkB=_SHRINK,
            linewidth=_line(edge.weight),
            color=colour,
            zorder=1,
        )
    )


def _write_on_arrow(axes: Any, start: Point, end: Point, bent: float, text: str) -> None:
    """A little nearer to its head, since many arrows cross in the middle.

    The way is a quadratic curve whose control point lies `bent` of its length to the right.
    """
    (x0, y0), (x1, y1) = start, end
    share = 0.6
    aside = 2 * share * (1 - share) * bent
    x = x0 + share * (x1 - x0) + aside * (y1 - y0)
    y = y0 + share * (y1 - y0) - aside * (x1 - x0)
    box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
    axes.text(x, y, text, ha="center", va="center", color=_INK, fontsize=7, zorder=3, bbox=box)


def _draw_ring(axes: Any, at: Point, edge: _Edge, colour: Any) -> Any:
    from matplotlib.patches import Circle

    width = _line(edge.weight)
    return axes.add_patch(Circle(at, 0.145, fill=False, edgecolor=colour, linewidth=width))


def _draw_region(axes: Any, text: str, at: Point, colour: Any) -> None:
    from matplotlib.patches import Circle

    x, y = at
    axes.add_patch(Circle(at, 0.1, facecolor=colour, edgecolor="white", zorder=2))
    side = "center" if abs(x) < 0.2 else "left" if x > 0 else "right"
    axes.text(1.2 * x, 1.2 * y, text, ha=side, va="center", color=_INK, fontsize=9, zorder=3)


def _line(weight: float) -> float:
    """Points of line width: by the root, so that weights of 0.1 and 10 are both lines."""
    return min(4.0, max(0.6, 1.4 * math.sqrt(weight)))


def _label(connection: Connection) -> str:
    """What a connection has besides its ends."""
    offset = connection.offset
    parts: list[str] = []
    if connection.weight != 1:
        parts.append(f"weight {connection.weight:g}")
    if isinstance(offset, int):
        parts.append(f"sees {_time(offset)}")
    elif offset is not None and len(offset):
        parts.append(f"sees {_time(min(offset))} to {_time(max(offset))}")
    elif offset is not None:
        parts.append("sees no time")
    return ", ".join(parts) or _PLAIN


def _time(offset: int) -> str:
    return f"t{offset:+d}" if offset else "t"
