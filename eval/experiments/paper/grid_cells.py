"""The cells of experiment 26: action loss (Table 3) or diffusion loss (Table 6)."""

from collections.abc import Callable

import numpy as np

from loopdit.eval.experiments.paper.check import printed
from loopdit.eval.experiments.paper.rounding import Printed, Reach, reach
from loopdit.eval.statistics.anova import Cells
from loopdit.eval.statistics.t_test import Summary

SEEDS = 3
ACTION, DIFFUSION = "action", "diffusion"  # sections of printed.yaml


def loop_levels() -> list[str]:
    """The rows."""
    return [str(level) for level in printed()["exp26"]["loops"]]


def freeze_levels() -> list[str]:
    """The columns."""
    return [str(level) for level in printed()["exp26"]["freeze"]]


def cell_keys() -> list[tuple[str, str]]:
    """Row by row."""
    return [(loops, freeze) for loops in loop_levels() for freeze in freeze_levels()]


def printed_values(table: str, what: str) -> list[Printed]:
    """Of each of `cell_keys` its "mean" or "std"."""
    return [Printed.of(text) for row in printed()["exp26"][table][what] for text in row]


def grid_of(table: str) -> dict[tuple[str, str], Summary]:
    """The cells at what is printed."""
    numbers = [*printed_values(table, "mean"), *printed_values(table, "std")]
    return _cells(np.array([number.value for number in numbers]))


def not_frozen() -> dict[tuple[str, str], Summary]:
    """The diffusion loss where something besides the loops is trained."""
    return {key: cell for key, cell in grid_of(DIFFUSION).items() if key[1] != "frozen"}


def reach_of_cells(table: str, function: Callable[[Cells], float]) -> Reach:
    """Of a function of all cells."""
    inputs = [*printed_values(table, "mean"), *printed_values(table, "std")]
    return reach(lambda flat: function(_cells(flat)), inputs)


def reach_of_means(table: str, function: Callable[[np.ndarray], float]) -> Reach:
    """Of a function of the means (loops, freeze)."""
    shape = len(loop_levels()), len(freeze_levels())
    return reach(lambda flat: function(flat.reshape(shape)), printed_values(table, "mean"))


def _cells(flat: np.ndarray) -> dict[tuple[str, str], Summary]:
    """All means, then all standard deviations."""
    keys = cell_keys()
    return {
        key: Summary(float(mean), float(std), SEEDS)
        for key, mean, std in zip(keys, flat[: len(keys)], flat[len(keys) :], strict=True)
    }
