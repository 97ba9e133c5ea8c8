"""The curves of a fixed-point report beside random weights', as one picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from loopdit.policy.fixed_point.diagnostics import Curve, FixedPointReport
from loopdit.whole_file import whole_file

_MODEL, _NULL = "#0b5394", "#8a8a8a"
# (curve, title, logarithmic, whether 1 divides approaching from running away)
_PANELS = (
    ("cosine", "cosine of consecutive states", False, False),
    ("update_norm", "size of the update", True, False),
    ("ratio", "update against the one before (below 1: shrinks)", False, True),
    ("lipschitz", "local Lipschitz constant (below 1: contracts)", True, True),
)


def draw(report: FixedPointReport, path: Path, title: str = "") -> None:
    """Write `report` as a picture in the format of `path`'s ending.

    The model: its median over samples, in the band of four fifths of them. The null: the median of
    its seeds' medians, in the band between their extremes.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 6.2), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True)
    model_label = f"model ({report.samples} samples)"
    null_label = f"random weights ({len(report.null)} seeds)"
    loops = len(report.model.cosine.median)
    for axis, (name, says, logarithmic, has_border) in zip(axes.flat, _PANELS, strict=True):
        curve: Curve = getattr(report.model, name)
        first = 1 + loops - len(curve.median)  # a ratio begins with the second loop
        null = np.array([getattr(curves, name).median for curves in report.null])
        if report.null:
            middle = np.median(null, axis=0)
            ends = null.min(axis=0), null.max(axis=0)
            _line(axis, first, middle, *ends, _NULL, "s", null_label)
        _line(axis, first, curve.median, curve.low, curve.high, _MODEL, "o", model_label)
        if has_border:
            axis.axhline(1, color="black", linewidth=0.8)
        if report.trained_loops < loops:
            axis.axvline(report.trained_loops + 0.5, color="black", linewidth=0.8, linestyle=":")
        axis.set_title(says, fontsize=10)
        axis.grid(alpha=0.25, linewidth=0.6)
        if logarithmic:
            axis.set_yscale("log")
        axis.xaxis.get_major_locator().set_params(integer=True)
    for axis in axes[1]:
        axis.set_xlabel("loop")
    axes[0][0].legend(frameon=False, fontsize=9, loc="lower right", reverse=True)
    if report.trained_loops < loops:
        place = (report.trained_loops + 0.6, 0.02)
        axis = axes[0][1]
        beyond = axis.get_xaxis_transform()
        axis.text(*place, "beyond training", transform=beyond, fontsize=8, style="italic")
    figure.suptitle(title, fontsize=11)
    with whole_file(path) as file:
        figure.savefig(file, format=path.suffix.lstrip(".") or "png", dpi=120)


def _line(
    axis: Any,
    first: int,
    middle: Sequence[float] | np.ndarray,
    low: Sequence[float] | np.ndarray,
    high: Sequence[float] | np.ndarray,
    color: str,
    marker: str,
    label: str,
) -> None:
    loops = np.arange(len(middle)) + first
    axis.fill_between(loops, low, high, color=color, alpha=0.2, linewidth=0)
    axis.plot(loops, middle, color=color, marker=marker, markersize=3.5, label=label)
