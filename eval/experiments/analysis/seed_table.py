"""Results of one experiment at one scale, asked for by cells: one number for each seed.

Where a selection holds several cells, as it leaves a factor open, a seed's number is their mean:
the geometric one of what is compared by ratio.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from loopdit.errors import ConfigError
from loopdit.eval.experiments.analysis.question import Selection
from loopdit.eval.experiments.experiment import Cell, Experiment
from loopdit.eval.experiments.store import CellResult


class NotThere(Exception):
    """A question has no answer: its cells have no results, or none of the same seeds."""


class NoRatio(NotThere):
    """A question has no answer by ratio: something to compare is not above 0."""


@dataclass(frozen=True)
class SeedTable:
    """`results` by cell of `experiment`, each by seed."""

    experiment: Experiment
    results: Mapping[tuple[str, ...], Mapping[int, CellResult]]

    @classmethod
    def of(cls, experiment: Experiment, results: Sequence[CellResult]) -> "SeedTable":
        """From the store's list."""
        found: dict[tuple[str, ...], dict[int, CellResult]] = {}
        for result in results:
            key = tuple(result.factors[factor] for factor in experiment.factors)
            found.setdefault(key, {})[result.seed] = result
        return cls(experiment, found)

    def levels(self, factor: str) -> list[str]:
        """Of a factor, as declared."""
        return list(self.experiment.factors[factor])

    def cells(self, *selections: Selection) -> list[Cell]:
        """The declared cells that are in all selections. Raises ConfigError where none is."""
        found = [
            cell
            for cell in self.experiment.cells()
            if all(
                cell[factor] in levels
                for selection in selections
                for factor, levels in selection.items()
            )
        ]
        if not found:
            raise ConfigError(f"{self.experiment.name}: no cell is in {selections}.")
        return found

    def has(self, metric: str, *selections: Selection) -> bool:
        """Whether all cells in all selections have results with the metric."""
        found = [self.results.get(tuple(cell.values()), {}) for cell in self.cells(*selections)]
        return all(
            results and all(metric in result.metrics for result in results.values())
            for results in found
        )

    def by_seed(self, metric: str, *selections: Selection, log: bool = False) -> dict[int, float]:
        """{seed: the metric, or its logarithm}, mean over the cells that are in all selections, of
        seeds that all of them have.

        Raises NotThere where there is none, NoRatio for a logarithm of what is not above 0,
        ConfigError for an unknown metric.
        """
        columns: list[dict[int, float]] = []
        for cell in self.cells(*selections):
            results = self.results.get(tuple(cell.values()), {})
            if not results:
                raise NotThere(f"{_text(cell)} has no results")
            columns.append({s: self._value(r, metric, log) for s, r in results.items()})
        seeds = sorted(set[int].intersection(*(set(column) for column in columns)))
        if not seeds:
            raise NotThere("its cells have no seed in common")
        return {seed: float(np.mean([column[seed] for column in columns])) for seed in seeds}

    def _value(self, result: CellResult, metric: str, log: bool) -> float:
        if metric not in result.metrics:
            known = ", ".join(result.metrics)
            raise ConfigError(
                f"{self.experiment.name}: results of {_text(result.factors)} have no metric "
                f"{metric!r}. They have: {known}."
            )
        value = result.metrics[metric]
        if log and value <= 0:
            raise NoRatio(
                f"{metric} is {value:g} in {_text(result.factors)}, seed {result.seed}, and no "
                f"ratio can be made of that"
            )
        return math.log(value) if log else value


def common(*columns: Mapping[int, float]) -> list[np.ndarray]:
    """The columns (n,) over the seeds that all have. Raises NotThere where there is none."""
    seeds = sorted(set[int].intersection(*(set(column) for column in columns)))
    if not seeds:
        raise NotThere("its cells have no seed in common")
    return [np.array([column[seed] for seed in seeds]) for column in columns]


def numeric_levels(table: SeedTable, factor: str) -> dict[float, str]:
    """{number: the level's name}; levels that are no numbers are left out."""
    found: dict[float, str] = {}
    for level in table.levels(factor):
        with suppress(ValueError):
            found[float(level)] = level
    return found


def _text(cell: Mapping[str, str]) -> str:
    return ", ".join(f"{factor}={level}" for factor, level in cell.items()) or "the experiment"
