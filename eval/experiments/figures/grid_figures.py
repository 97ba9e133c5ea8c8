"""Panels of figures 6 and 7: the grid of experiment 26, the paper's beside ours."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from loopdit.eval.experiments.analysis.seed_table import NotThere, SeedTable
from loopdit.eval.experiments.figures.drawing import (
    Palette,
    Panel,
    printed_points,
    seed_points,
)
from loopdit.eval.experiments.paper.counts import trainable
from loopdit.eval.experiments.paper.grid_cells import (
    ACTION,
    freeze_levels,
    grid_of,
    loop_levels,
)

_Columns = list[np.ndarray]


def grid_panels(table: SeedTable | None, not_run: str) -> tuple[Panel, ...]:
    """The paper's grid, ours, and both marginals of each."""
    return (
        Panel("figure-6a", "Grid, paper", _draw_printed_grid),
        _our_grid(table, not_run),
        _marginals(table, not_run, "loops", loop_levels(), "6c"),
        _marginals(table, not_run, "freeze", freeze_levels(), "6d"),
    )


def parameter_panels(table: SeedTable | None, not_run: str) -> tuple[Panel, ...]:
    """Loss of each cell against what it trains."""
    return (Panel("figure-7a", "Paper", _draw_printed_parameters), _our_parameters(table, not_run))


def _draw_printed_grid(axes: Axes, palette: Palette) -> None:
    cells = grid_of(ACTION)
    for place, freeze in enumerate(freeze_levels()):
        column = [cells[loops, freeze] for loops in loop_levels()]
        axes.errorbar(
            [k + 0.1 * (place - 1) for k in range(4)],
            [cell.mean for cell in column],
            yerr=[cell.std for cell in column],
            color=palette.colour(place),
            marker="D",
            markerfacecolor="none",
            linestyle="--",
            linewidth=1,
            capsize=3,
            label=freeze,
        )
    _loop_axis(axes)


def _our_grid(table: SeedTable | None, not_run: str) -> Panel:
    columns = {freeze: _ours(table, freeze=[freeze]) for freeze in freeze_levels()}
    there = all(columns.values())

    def draw(axes: Axes, palette: Palette) -> None:
        for place, (freeze, values) in enumerate(columns.items()):
            if values:
                places = [k + 0.1 * (place - 1) for k in range(4)]
                seed_points(axes, places, values, palette.colour(place), freeze)
        _loop_axis(axes)

    return Panel("figure-6b", "Grid, ours", draw, "" if there else not_run)


def _marginals(
    table: SeedTable | None, not_run: str, factor: str, levels: Sequence[str], letter: str
) -> Panel:
    """Means over the other factor, relative to the first level's: units differ."""
    cells = grid_of(ACTION)
    axis = 0 if factor == "loops" else 1
    means = [
        float(np.mean([cell.mean for key, cell in cells.items() if key[axis] == level]))
        for level in levels
    ]
    ours: _Columns = []
    if table is not None:
        try:
            found = [table.by_seed(table.experiment.metric, {factor: [one]}) for one in levels]
            seeds = sorted(set[int].intersection(*(set(column) for column in found)))
            ours = [np.array([column[s] / found[0][s] for s in seeds]) for column in found]
        except NotThere:
            ours = []

    def draw(axes: Axes, palette: Palette) -> None:
        printed_points(axes, range(len(levels)), [mean / means[0] for mean in means], palette)
        if ours:
            seed_points(axes, range(len(levels)), ours, palette.colour(0), "ours")
        axes.set_xticks(range(len(levels)), list(levels))
        axes.set_xlabel(factor)
        axes.set_ylabel(f"action loss, over {factor} = {levels[0]}")

    return Panel(f"figure-{letter}", f"Means by {factor}", draw, "" if ours else not_run)


def _draw_printed_parameters(axes: Axes, palette: Palette) -> None:
    cells = grid_of(ACTION)
    for place, freeze in enumerate(freeze_levels()):
        column = [cells[loops, freeze] for loops in loop_levels()]
        axes.errorbar(
            [trainable(int(loops), freeze) for loops in loop_levels()],
            [cell.mean for cell in column],
            yerr=[cell.std for cell in column],
            color=palette.colour(place),
            marker="D",
            markerfacecolor="none",
            linestyle="none",
            capsize=3,
            label=freeze,
        )
    _parameter_axis(axes)


def _our_parameters(table: SeedTable | None, not_run: str) -> Panel:
    points: dict[str, list[tuple[int, np.ndarray]]] = {}
    for freeze in freeze_levels() if table is not None else []:
        for loops in loop_levels():
            assert table is not None
            results = [*table.results.get((loops, freeze), {}).values()]
            if results:
                values = np.array([r.metrics[table.experiment.metric] for r in results])
                points.setdefault(freeze, []).append((results[0].parameters, values))

    def draw(axes: Axes, palette: Palette) -> None:
        for place, (freeze, found) in enumerate(points.items()):
            for parameters, values in found:
                label: Any = freeze if parameters == found[0][0] else None
                seed_points(axes, [parameters], [values], palette.colour(place), label)
        _parameter_axis(axes)

    return Panel("figure-7b", "Ours", draw, "" if points else not_run)


def _ours(table: SeedTable | None, freeze: Sequence[str]) -> _Columns:
    """The metric by loop count at a freeze level, none where a cell is missing."""
    if table is None:
        return []
    try:
        return [
            np.array(
                [
                    *table.by_seed(
                        table.experiment.metric, {"loops": [loops], "freeze": freeze}
                    ).values()
                ]
            )
            for loops in loop_levels()
        ]
    except NotThere:
        return []


def _loop_axis(axes: Axes) -> None:
    axes.set_xticks(range(4), loop_levels())
    axes.set_xlabel("loops")
    axes.set_ylabel("action loss")


def _parameter_axis(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.set_xlabel("trainable parameters")
    axes.set_ylabel("action loss")
