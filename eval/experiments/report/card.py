"""What the report card shows, gathered: verdicts, plots, the paper's own numbers.

Of each experiment the largest scale that has results is taken, or the one that is asked for.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from statistics import fmean
from typing import Any

from loopdit.errors import ConfigError
from loopdit.eval.experiments.analysis.seed_table import SeedTable
from loopdit.eval.experiments.analysis.verdict import VERDICTS, Verdict, verdicts
from loopdit.eval.experiments.experiment import SCALES, Experiment, experiments
from loopdit.eval.experiments.figures.cell_plot import cell_plot
from loopdit.eval.experiments.figures.drawing import Panel
from loopdit.eval.experiments.figures.paper_figures import PaperFigure, paper_figures
from loopdit.eval.experiments.paper.check import Check
from loopdit.eval.experiments.paper.recompute import paper_checks, paper_tables
from loopdit.eval.experiments.store import CellResult, failures, results


@dataclass(frozen=True)
class Row:
    """One experiment: its verdict, plot, how many runs there are of how many, and the file that
    declares it, from the report's folder."""

    verdict: Verdict
    plot: Panel | None
    runs: int
    runs_wanted: int
    failed: int
    configuration: str

    @property
    def experiment(self) -> Experiment:
        """The row's."""
        return self.verdict.experiment


@dataclass(frozen=True)
class Card:
    """Everything. `provenance`: (what, its values) of the results, for people."""

    paper_rows: list[Row]
    our_rows: list[Row]
    figures: list[PaperFigure]
    checks: tuple[Check, ...]
    provenance: list[tuple[str, str]]

    @property
    def rows(self) -> list[Row]:
        """The paper's, then ours."""
        return [*self.paper_rows, *self.our_rows]

    def counts(self) -> dict[str, int]:
        """How many of the paper's experiments got each verdict."""
        found = [row.verdict.verdict for row in self.paper_rows]
        return {verdict: found.count(verdict) for verdict in VERDICTS}


Results = tuple[Experiment, str, list[CellResult]]


def card(out: Path, scale: str = "") -> Card:
    """Of the results in `out`. Raises ConfigError where there is nothing to report."""
    found = _found(out, scale)
    tables = [SeedTable.of(experiment, cells) for experiment, _, cells in found]
    rows = [
        _row(out, verdict, table) for verdict, table in zip(verdicts(found), tables, strict=True)
    ]
    by_number = {
        number: table
        for table in tables
        if (number := table.experiment.number) is not None and table.results
    }
    return Card(
        paper_rows=[row for row in rows if row.experiment.number is not None],
        our_rows=[row for row in rows if row.experiment.number is None],
        figures=paper_figures(by_number),
        checks=paper_checks(),
        provenance=_provenance([result for _, _, cells in found for result in cells]),
    )


def as_json(out: Path, scale: str = "") -> dict[str, Any]:
    """{"experiments": [...], "paper": {...}}: verdicts and recomputed tables, without plots."""
    found = _found(out, scale)
    listed = [
        {**verdict.to_dict(), "cells": _cells(SeedTable.of(experiment, cells))}
        for verdict, (experiment, _, cells) in zip(verdicts(found), found, strict=True)
    ]
    return {"experiments": listed, "paper": paper_tables()}


def _cells(table: SeedTable) -> list[dict[str, Any]]:
    """Of each cell the means of its metrics over seeds."""
    return [
        {
            "factors": dict(zip(table.experiment.factors, levels, strict=True)),
            "n": len(seeds),
            "parameters": next(iter(seeds.values())).parameters,
            "metrics": {
                name: fmean(result.metrics[name] for result in seeds.values())
                for name in next(iter(seeds.values())).metrics
            },
        }
        for levels, seeds in table.results.items()
    ]


def _found(out: Path, scale: str) -> list[Results]:
    known = list(experiments().values())
    scales = (scale,) if scale else tuple(reversed(SCALES))
    if not out.is_dir():
        raise ConfigError(f"out={out} is no folder. Run some first: policy-experiment run all.")
    found = [_largest(out, experiment, scales) for experiment in known]
    if not any(cells for _, _, cells in found):
        at = f" at scale={scale}" if scale else ""
        raise ConfigError(
            f"out={out} holds no results{at} of the experiments as they are declared now. Run "
            f"some: policy-experiment run all out={out}."
        )
    return found


def _largest(out: Path, experiment: Experiment, scales: Sequence[str]) -> Results:
    for scale in scales:
        if not experiment.missing and (out / scale / experiment.name).is_dir():
            cells = results(out, experiment, scale)
            if cells:
                return experiment, scale, cells
    return experiment, "", []


def _row(out: Path, verdict: Verdict, table: SeedTable) -> Row:
    experiment, scale = verdict.experiment, verdict.scale
    wanted = failed = 0
    if scale:
        wanted = len([*experiment.cells()]) * experiment.scales[scale].seeds
        failed = len(failures(out, experiment, scale))
    declared = resources.files("loopdit.configs.experiment") / f"{experiment.name}.yaml"
    return Row(
        verdict=verdict,
        plot=cell_plot(table) if table.results else None,
        runs=sum(len(seeds) for seeds in table.results.values()),
        runs_wanted=wanted,
        failed=failed,
        # Resolved, as the packages of a checkout are links.
        configuration=os.path.relpath(Path(str(declared)).resolve(), out.resolve()),
    )


def _provenance(cells: Sequence[CellResult]) -> list[tuple[str, str]]:
    """What they were made with; several values where several machines or versions were."""
    found: dict[str, dict[str, None]] = {}
    for cell in cells:
        for name, value in _flat(cell.provenance):
            found.setdefault(name, {})[value] = None
    hours = sum(cell.wall_s for cell in cells) / 3600
    runs = [("runs", f"{len(cells)}, {hours:.1f} hours of them")]
    return [*runs, *((name, ", ".join(values)) for name, values in found.items())]


def _flat(values: Any, prefix: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            found += _flat(value, f"{prefix}{name} ")
        else:
            found.append((f"{prefix}{name}", str(value)))
    return found
