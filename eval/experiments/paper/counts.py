"""Runs and parameters of the paper, counted again."""

from typing import Any

from loopdit.eval.experiments.paper.check import Check, entry, number, number_check, printed
from loopdit.eval.experiments.paper.rounding import Printed, Reach, reach

# The graft (CogVideoX-2B in diffusers): 30 blocks of width 1920, and what each level unfreezes.
_BLOCKS, _WIDTH = 30, 1920
_NORM_FINAL = 2 * _WIDTH
_TIME_EMBEDDING, _NORM_OUT, _PROJ_OUT = 1_246_208, 1_973_760, 122_944
_PATCH_EMBED = 7_991_040
# Linear(16, 8), GELU, Linear(8, 7), as the paper writes it.
_HEAD = (16 + 1) * 8 + (8 + 1) * 7
# The toy model: a canvas of 5 x 4 x 6 with 4 frames of 20 patches, width 128.
_CANVAS, _VISUAL, _TOY_WIDTH = 5 * 4 * 6, 4 * 20, 128


def trainable(loops: int, freeze: str) -> int:
    """Parameters of the graft that are trained: frozen, half or unfrozen."""
    count = _BLOCKS * (2 * _WIDTH + 1) * loops + _NORM_FINAL + _HEAD
    if freeze in ("half", "unfrozen"):
        count += _TIME_EMBEDDING + _NORM_OUT + _PROJ_OUT
    return count + (_PATCH_EMBED if freeze == "unfrozen" else 0)


def count_tables() -> dict[str, Any]:
    """What `paper.runs` and `paper.parameters` of the report hold."""
    return {
        "runs": {
            "printed": int(number("runs.total").value),
            "sum_of_table_4": _table_4(),
            "with_configurations_of_6": _table_4() + _more_of_6(),
            "experiments_listed": len(_by_experiment()),
        },
        "parameters": {
            "action_head": _HEAD,
            "trainable": {
                freeze: [trainable(loops, freeze) for loops in range(1, 5)]
                for freeze in ("frozen", "half", "unfrozen")
            },
        },
    }


def count_checks() -> list[Check]:
    """Everything that can be counted again."""
    return [*_run_checks(), *_parameter_checks()]


def _by_experiment() -> dict[int, int | None]:
    return printed()["runs"]["by_experiment"]["value"]


def _table_4() -> int:
    return sum(runs or 0 for runs in _by_experiment().values())


def _more_of_6() -> int:
    """Four configurations over five seeds are 20 runs; the table counts 5."""
    seeds = _by_experiment()[6] or 0
    return (int(number("runs.configurations_of_6").value) - 1) * seeds


def _exact(value: float) -> Reach:
    return Reach(value, value, value)


def _run_checks() -> list[Check]:
    total, listed, more = _table_4(), len(_by_experiment()), _table_4() + _more_of_6()
    last = max(_by_experiment())
    absent = [str(one) for one in range(1, last + 1) if one not in _by_experiment()]
    return [
        number_check(
            "runs.total",
            None,
            Reach(total, total, more),
            f"The column of Table 4 adds up to {total}, and to {more} with all configurations of "
            f"experiment 6; the rest would have to lie in the three that have no count.",
        ),
        number_check(
            "runs.experiments",
            None,
            _exact(listed),
            f"Table 4 lists {listed}; number {', '.join(absent)} is described nowhere.",
        ),
    ]


def _parameter_checks() -> list[Check]:
    best = trainable(3, "frozen")
    by_frozen = [trainable(loops, "unfrozen") / trainable(loops, "frozen") for loops in range(1, 5)]
    where, times = entry("parameters.unfrozen_by_frozen")
    least_unfrozen = trainable(1, "unfrozen")
    return [
        number_check(
            "parameters.action_head",
            26,
            _exact(_HEAD),
            f"Linear(16, 8) and Linear(8, 7) have {_HEAD} parameters, {_HEAD - 15} without biases.",
        ),
        _counted("parameters.loop_least", trainable(1, "frozen")),
        _counted("parameters.frozen_most", trainable(4, "frozen")),
        _counted("parameters.best_frozen", best),
        _counted("parameters.half_least", trainable(1, "half")),
        _counted("parameters.half_most", trainable(4, "half")),
        _counted("parameters.unfrozen_least_in_table", least_unfrozen),
        _counted("parameters.unfrozen_most", trainable(4, "unfrozen")),
        _counted(
            "parameters.unfrozen_most_in_table",
            trainable(4, "unfrozen"),
            f"At 4 loops they are {trainable(4, 'unfrozen'):,}, the 11.8M of section 3.4.",
        ),
        number_check("parameters.unfrozen_by_best", 26, _exact(least_unfrozen / best)),
        Check.of_claim(
            "parameters.unfrozen_by_frozen",
            "times",
            26,
            where,
            f"Unfreezing {times.text}x more parameters",
            by_frozen[0],
            min(by_frozen) >= 0.9 * times.value,
            f"At 1 loop it is {by_frozen[0]:.0f} times; at equal loops up to 4 it falls to "
            f"{by_frozen[-1]:.0f}.",
        ),
        number_check(
            "parameters.canvas_visual_percent",
            None,
            reach(lambda v: float(100 * v[0] / v[1]), [_whole(_VISUAL), _whole(_CANVAS)]),
        ),
        number_check("parameters.halting_cheaper", None, _exact(_TOY_WIDTH)),
    ]


def _counted(path: str, count: int, otherwise: str = "") -> Check:
    where, value = entry(path)
    unit = {1000: "K", 1_000_000: "M"}[int(printed()["parameters"][path.split(".")[1]]["unit"])]
    return Check.of_number(
        path, 26, where, f"{value.text}{unit}", value, _exact(float(count)), otherwise
    )


def _whole(count: int) -> Printed:
    return Printed(str(count), float(count), 0.0)
