"""Figures 1 to 7 of the paper: what it prints, and beside it what we measured.

Where losses are in other units, both are shown relative to the same condition. A figure is drawn
from what there is: a panel without data of ours says so.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes

from loopdit.eval.experiments.analysis.question import Selection
from loopdit.eval.experiments.analysis.seed_table import NotThere, SeedTable, common
from loopdit.eval.experiments.figures.drawing import (
    Palette,
    Panel,
    printed_points,
    reference_line,
    seed_points,
)
from loopdit.eval.experiments.figures.grid_figures import grid_panels, parameter_panels
from loopdit.eval.experiments.paper.check import number, numbers, printed

Tables = Mapping[int, SeedTable]
NOT_RUN = "ours: not run"


@dataclass(frozen=True)
class PaperFigure:
    """A figure of the paper by number, as panels; `experiments` are those that it is of."""

    number: int
    experiments: tuple[int, ...]
    title: str
    caption: str
    panels: tuple[Panel, ...]


def paper_figures(tables: Tables) -> list[PaperFigure]:
    """All seven; `tables` holds the results by experiment number."""
    return [_with_scales(figure, tables) for figure in _figures(tables)]


def _figures(tables: Tables) -> list[PaperFigure]:
    return [
        PaperFigure(
            1,
            (6,),
            "Experiment 6: looped against deep at like parameters",
            "Loss of each system over that of 12 blocks once at like parameters, of the same seed; "
            "wide has the looped model's width, and 3.4 times its parameters. Diamonds: the "
            "paper, 0.135 over 0.234 and 0.0145 over 0.0183.",
            (
                _depth(tables, "total_loss", "total", "1a"),
                _depth(tables, "main_loss", "visual", "1b"),
            ),
        ),
        PaperFigure(
            2,
            (12,),
            "Experiment 12: states from loop to loop",
            "Cosine of consecutive states, and how large an update is. Dotted line of ours: random "
            "weights, whose cosine rises too: it shows no contraction by itself.",
            (
                _convergence(tables, "cosine", "2a"),
                _convergence(tables, "relative_update", "2b"),
            ),
        ),
        PaperFigure(
            3,
            (2, 21, 22),
            "Experiments 2, 21, 22: reasoning",
            "How many times better 4 loops are than 1, by hops and with or without body tokens; "
            "the error at collision level 4 over that at level 1.",
            (_hops(tables), _collisions(tables), _morphology(tables)),
        ),
        PaperFigure(
            4,
            (24,),
            "Experiment 24: observations predicted beside actions",
            "Action error over that without observation queries, of the same seed.",
            (_joint(tables),),
        ),
        PaperFigure(
            5,
            (25,),
            "Experiment 25: tokens for the same actions",
            "Action error over that with one token, of the same seed. Dashed: n^-0.011.",
            (_magnification(tables),),
        ),
        PaperFigure(
            6,
            (26,),
            "Experiment 26: loops and frozen layers",
            "Action loss, mean over three seeds with standard deviation (paper), and ours with its "
            "95 % interval. Losses are in other units.",
            grid_panels(tables.get(26), NOT_RUN),
        ),
        PaperFigure(
            7,
            (26,),
            "Experiment 26: action loss against trainable parameters",
            "Each cell of the grid. Parameters of the paper's cells are counted by us.",
            parameter_panels(tables.get(26), NOT_RUN),
        ),
    ]


def _with_scales(figure: PaperFigure, tables: Tables) -> PaperFigure:
    """With a caption that says at which scale ours were run."""
    scales = {
        result.scale: None
        for number in figure.experiments
        if number in tables
        for seeds in tables[number].results.values()
        for result in seeds.values()
    }
    ours = f"Ours at scale {', '.join(scales)}." if scales else "None of ours were run."
    return replace(figure, caption=f"{figure.caption} {ours}")


Columns = list[np.ndarray]


def _ours(get: Callable[[], Columns]) -> tuple[Columns, str]:
    """Columns of ours, or none with what is missing."""
    try:
        return get(), ""
    except (NotThere, KeyError):
        return [], NOT_RUN


def _ratios(table: SeedTable, metric: str, over: Sequence[Selection], under: Selection) -> Columns:
    """For each selection of `over`, by seed its metric over that of `under`."""
    found: Columns = []
    for selection in over:
        first, second = common(
            table.by_seed(metric, selection, log=True), table.by_seed(metric, under, log=True)
        )
        found.append(np.exp(first - second))
    return found


def _depth(tables: Tables, metric: str, name: str, letter: str) -> Panel:
    systems = {
        "3b4l": "3B4L",
        "6b2l_d95": "6B2L",
        "12b1l_d68": "12B1L",
        "12b1l_d128": "12B1L\nwide",
    }
    ours, missing = _ours(
        lambda: _ratios(
            tables[6], metric, [{"system": [key]} for key in systems], {"system": ["12b1l_d68"]}
        )
    )
    ratio = number(f"exp6.{name}_looped").value / number(f"exp6.{name}_deep").value

    def draw(axes: Axes, palette: Palette) -> None:
        reference_line(axes, 1.0, palette)
        printed_points(axes, [0, 2], [ratio, 1.0], palette)
        if ours:
            seed_points(axes, range(4), ours, palette.colour(0), "ours")
        axes.set_xticks(range(4), [*systems.values()])
        axes.set_xlim(-0.5, 3.5)
        axes.set_ylabel(f"{name} loss, over 12B1L")

    return Panel(f"figure-{letter}", f"{name.capitalize()} loss", draw, missing)


def _convergence(tables: Tables, column: str, letter: str) -> Panel:
    def curves(name: str) -> Columns:
        runs = [result for seeds in tables[12].results.values() for result in seeds.values()]
        rows = [run.curve[name] for run in runs if run.curve is not None and name in run.curve]
        if not rows:
            raise NotThere("no curves")
        return list(np.array(rows, dtype=float).T)

    ours, missing = _ours(lambda: curves(column))
    null, _ = _ours(lambda: curves(f"null_{column}"))
    is_cosine = column == "cosine"
    if is_cosine:
        places = [1, 2, 3, 4, 8]
        values = [c.value for c in numbers("exp12.cosine")] + [number("exp12.cosine_at_8").value]
    else:
        places = [1, 4]
        values = [number(f"exp12.velocity_{name}").value for name in ("first", "last")]

    def draw(axes: Axes, palette: Palette) -> None:
        printed_points(axes, places, values, palette)
        if ours:
            loops = range(1, len(ours) + 1)
            seed_points(axes, loops, ours, palette.colour(0), "ours")
            if null:
                means = [float(np.mean(values)) for values in null]
                axes.plot(loops, means, ":", color=palette.colour(1), label="ours, random weights")
        axes.set_xlabel("loop")
        axes.set_ylabel("cosine to the next state" if is_cosine else "relative update")

    return Panel(f"figure-{letter}", "Cosine" if is_cosine else "Update", draw, missing)


def _hops(tables: Tables) -> Panel:
    def improvement(hops: int) -> np.ndarray:
        return _ratios(tables[2], f"hops_{hops}_loss", [{"loops": ["1"]}], {"loops": ["4"]})[0]

    hops: list[int] = printed()["exp2"]["hops"]
    ours, missing = _ours(lambda: [improvement(one) for one in hops])

    def draw(axes: Axes, palette: Palette) -> None:
        reference_line(axes, 1.0, palette)
        printed_points(axes, hops, [ratio.value for ratio in numbers("exp2.ratio")], palette)
        if ours:
            seed_points(axes, hops, ours, palette.colour(0), "ours")
        axes.set_xticks(hops)
        axes.set_xlabel("hops")
        axes.set_ylabel("4 loops over 1, times better")

    return Panel("figure-3a", "Multi-hop reasoning", draw, missing)


def _collisions(tables: Tables) -> Panel:
    systems = {"3b1l": "3B1L", "3b4l": "3B4L", "12b1l_d128": "12B1L\nwide", "12b1l_d68": "12B1L"}
    ours, missing = _ours(
        lambda: [
            np.array(
                [*tables[21].by_seed(tables[21].experiment.metric, {"system": [key]}).values()]
            )
            for key in systems
        ]
    )

    def draw(axes: Axes, palette: Palette) -> None:
        errors = [std.value for std in numbers("exp21.std")]
        means = [mean.value for mean in numbers("exp21.mean")]
        printed_points(axes, range(4), means, palette, errors=errors)
        if ours:
            seed_points(axes, range(4), ours, palette.colour(0), "ours")
        axes.set_xticks(range(4), [*systems.values()])
        axes.set_ylabel("error, level 4 over level 1")

    return Panel("figure-3b", "Collisions", draw, missing)


def _morphology(tables: Tables) -> Panel:
    def improvement(bodies: str) -> np.ndarray:
        at = {"bodies": [bodies]}
        one, four = ({**at, "architecture": [name]} for name in ("1_loop", "4_loops"))
        return _ratios(tables[22], tables[22].experiment.metric, [one], four)[0]

    ours, missing = _ours(lambda: [improvement(bodies) for bodies in ("no", "yes")])
    ratio = number("exp22.loops_ratio").value

    def draw(axes: Axes, palette: Palette) -> None:
        reference_line(axes, 1.0, palette)
        printed_points(axes, [0, 1], [ratio, ratio], palette)
        if ours:
            seed_points(axes, [0, 1], ours, palette.colour(0), "ours")
        axes.set_xticks([0, 1], ["without bodies", "with bodies"])
        axes.set_xlim(-0.5, 1.5)
        axes.set_ylabel("4 loops over 1, times better")

    return Panel("figure-3c", "Morphology and loops", draw, missing)


def _joint(tables: Tables) -> Panel:
    queries = ["0", "2", "8", "16", "32"]
    ours, missing = _ours(
        lambda: _ratios(
            tables[24],
            tables[24].experiment.metric,
            [{"observation_queries": [one]} for one in queries],
            {"observation_queries": ["0"]},
        )
    )
    worse = number("exp24.joint").value / number("exp24.alone").value

    def draw(axes: Axes, palette: Palette) -> None:
        reference_line(axes, 1.0, palette)
        printed_points(axes, range(5), [1.0, *[worse] * 4], palette)
        if ours:
            seed_points(axes, range(5), ours, palette.colour(0), "ours")
        axes.set_xticks(range(5), queries)
        axes.set_xlabel("observation queries")
        axes.set_ylabel("action error, over none")

    return Panel("figure-4", "Joint prediction", draw, missing)


def _magnification(tables: Tables) -> Panel:
    tokens: list[int] = printed()["exp25"]["tokens"]
    ours, missing = _ours(
        lambda: _ratios(
            tables[25],
            tables[25].experiment.metric,
            [{"action_tokens": [str(n)]} for n in tokens],
            {"action_tokens": ["1"]},
        )
    )
    alpha = number("exp25.alpha").value

    def draw(axes: Axes, palette: Palette) -> None:
        law = [n**-alpha for n in tokens]
        axes.plot(tokens, law, "--", color=palette.ink, linewidth=1, label="paper's law")
        if ours:
            seed_points(axes, tokens, ours, palette.colour(0), "ours")
        axes.set_xscale("log", base=2)
        axes.set_xticks(tokens, [str(n) for n in tokens])
        axes.set_xlabel("action tokens")
        axes.set_ylabel("action error, over one token")

    return Panel("figure-5", "Cortical magnification", draw, missing)
