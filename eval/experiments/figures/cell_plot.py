"""An experiment's own plot: its metric in every cell, seed by seed, with mean and 95 % interval."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from loopdit.eval.experiments.analysis.seed_table import SeedTable
from loopdit.eval.experiments.experiment import LOWER
from loopdit.eval.experiments.figures.drawing import (
    Palette,
    Panel,
    reference_line,
    seed_points,
)

_SHORT = 9  # letters of a tick beyond which ticks are turned


def cell_plot(table: SeedTable) -> Panel | None:
    """Lines for the levels of the first factor over those of the second, or of the one there is;
    None where no cell has results."""
    experiment = table.experiment
    factors = list(experiment.factors)
    across = factors[-1] if factors else ""
    lines = factors[0] if len(factors) > 1 else ""
    ticks = table.levels(across) if across else ["all"]
    series: list[tuple[str, list[int], list[np.ndarray]]] = []
    for name in table.levels(lines) if lines else [""]:
        places: list[int] = []
        columns: list[np.ndarray] = []
        for place, level in enumerate(ticks):
            where = {**({lines: [name]} if lines else {}), **({across: [level]} if across else {})}
            if table.has(experiment.metric, where):
                places.append(place)
                columns.append(np.array([*table.by_seed(experiment.metric, where).values()]))
        if places:
            series.append((f"{lines} = {name}" if lines else "seeds, mean, 95 %", places, columns))
    if not series:
        return None
    baseline = _baseline(table)

    def draw(axes: Axes, palette: Palette) -> None:
        for number, (label, places, columns) in enumerate(series):
            shift = 0.12 * (number - (len(series) - 1) / 2)
            moved = [place + shift for place in places]
            seed_points(axes, moved, columns, palette.colour(number), label)
        if baseline is not None:
            reference_line(axes, baseline, palette)
        _ticks(axes, ticks)
        better = "lower" if experiment.better == LOWER else "higher"
        axes.set_xlabel(across)
        axes.set_ylabel(f"{experiment.metric} ({better} is better)")

    missing = len([*experiment.cells()]) - len(table.results)
    return Panel(
        f"cells-{experiment.name}",
        f"{experiment.title}: {experiment.metric}",
        draw,
        f"{missing} cells without results" if missing else "",
    )


def _baseline(table: SeedTable) -> float | None:
    """The baseline metric's mean, if results have it."""
    name = table.experiment.baseline_metric
    values = [
        result.metrics[name]
        for results in table.results.values()
        for result in results.values()
        if name is not None and name in result.metrics
    ]
    return float(np.mean(values)) if values else None


def _ticks(axes: Axes, names: Sequence[str]) -> None:
    turned = any(len(name) > _SHORT for name in names)
    axes.set_xticks(
        range(len(names)),
        list(names),
        rotation=25 if turned else 0,
        ha="right" if turned else "center",
    )
    axes.set_xlim(-0.5, len(names) - 0.5)
