"""`policy-experiment list`: the experiments, what they claim, how much of them is done."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from loopdit.command import Command, option
from loopdit.eval.experiments.experiment import SCALES, Experiment, experiments
from loopdit.subcommand import run_subcommand

_WIDTH = 120  # where it is no terminal: claims are sentences, and json=true is for programs

COMMAND = Command(
    name="policy-experiment list",
    folder="experiment_list",
    summary="the experiments: claim, cells, and how many of the runs at each scale are done.",
    examples=("policy-experiment list", "policy-experiment list out=DIR json=true"),
)


@dataclass(frozen=True)
class ListConfig:
    """What to say."""

    out: str = option("outputs/experiments", "folder of the results")
    json: bool = option(False, "print one JSON object")


def main(arguments: Sequence[str]) -> None:
    """Entry point of `policy-experiment list`."""
    run_subcommand(COMMAND, ListConfig, run, arguments, places=())


def run(config: ListConfig) -> None:
    """Print the list."""
    rows = [_row(experiment, Path(config.out)) for experiment in experiments().values()]
    if config.json:
        sys.stdout.write(json.dumps({"experiments": rows}) + "\n")
        return
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        caption="At each scale: runs that are done, of cells x seeds.",
    )
    table.add_column("#", justify="right")
    table.add_column("name", no_wrap=True)
    table.add_column("claim", overflow="fold")
    table.add_column("cells", justify="right")
    for scale in SCALES:
        table.add_column(scale, justify="right", no_wrap=True)
    for row in rows:
        shares = [_share(row, scale) for scale in SCALES]
        cells = "missing" if row["missing"] else str(row["cells"])
        table.add_row(str(row["number"] or ""), row["name"], row["claim"], cells, *shares)
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    console.print(table)


def _row(experiment: Experiment, out: Path) -> dict[str, Any]:
    cells = 0 if experiment.missing else prod(len(v) for v in experiment.factors.values())
    row: dict[str, Any] = {
        "number": experiment.number,
        "name": experiment.name,
        "title": experiment.title,
        "claim": experiment.claim,
        "missing": experiment.missing,
        "cells": cells,
        "scales": {},
    }
    for name, scale in experiment.scales.items():
        done, failed = _done(experiment, out, name)
        row["scales"][name] = {
            "seeds": scale.seeds,
            "runs": cells * scale.seeds,
            "done": done,
            "failed": failed,
        }
    return row


def _done(experiment: Experiment, out: Path, scale: str) -> tuple[int, int]:
    """How many results and failures lie in `out`."""
    if not (out / scale / experiment.name).is_dir():
        return 0, 0
    from loopdit.eval.experiments.store import failures, results

    return len(results(out, experiment, scale)), len(failures(out, experiment, scale))


def _share(row: dict[str, Any], scale: str) -> str:
    if row["missing"]:
        return ""
    found = row["scales"][scale]
    failed = f", {found['failed']} failed" if found["failed"] else ""
    return f"{found['done']}/{found['runs']}{failed}"
