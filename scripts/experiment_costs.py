"""What a scale of the experiments costs: each kind of run for a few steps, extrapolated.

    python scripts/experiment_costs.py [NAME ...] [--scale cpu] [--out FOLDER]

A run costs what its steps, its looks at the held-out error and the rest (data, measures) do. Each
kind of run is done a few times, shortened: with its measures, without them, for more steps, and
with some looks, which gives the three prices. Seconds are of the process on one thread, so that
other work on the machine counts little. A run that an earlier experiment has in common is counted
there alone, as `policy-experiment run` does it once.

`graft_grid` trains a backbone first and is left out: its results have their seconds.
Writes OUT/experiment_costs.json and prints a table.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from loopdit.eval.experiments.experiment import Experiment, experiments, merged, named
from loopdit.eval.experiments.plan import Run, resolve, runs_of
from loopdit.eval.experiments.studies.study import study_named
from loopdit.machine import describe_machine, machine_and_versions
from loopdit.whole_file import whole_file

FEW, MORE, LOOKS = 1, 4, 2
LEFT_OUT = ("graft_grid",)


@dataclass(frozen=True)
class Price:
    """Seconds of a run: for each step, for each look, and besides."""

    step: float
    look: float
    besides: float

    def of(self, options: Mapping[str, Any]) -> float:
        """A run with these options."""
        looks = min(options.get("looks", 0), options["steps"])
        return self.besides + self.step * options["steps"] + self.look * looks


@dataclass(frozen=True)
class Cost:
    """A row of the table; `runs` that no earlier experiment has, and their `seconds` together."""

    experiment: str
    arms: int
    seeds: int
    runs: int
    seconds: float


def main() -> None:
    """Measure, write the record, show the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--scale", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("outputs/experiment-costs"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    chosen = [named(name) for name in given.names] or [*experiments().values()]
    prices: dict[str, Price] = {}
    counted: set[str] = set()
    rows: list[Cost] = []
    for experiment in chosen:
        if experiment.missing or experiment.study in LEFT_OUT:
            continue
        rows.append(cost(experiment, given.scale, prices, counted))
        say(rows[-1])
        record = {"scale": given.scale, "rows": [asdict(row) for row in rows]}
        record |= {"prices": {name: asdict(price) for name, price in prices.items()}}
        with whole_file(given.out / "experiment_costs.json") as aside:
            aside.write_text(json.dumps(record | machine_and_versions(), indent=1) + "\n")
    hours = sum(row.seconds for row in rows) / 3600
    sys.stdout.write(f"{hours:.1f} hours of one core; {describe_machine(machine_and_versions())}\n")


def cost(experiment: Experiment, scale: str, prices: dict[str, Price], counted: set[str]) -> Cost:
    """Of the runs that are not `counted` yet, which they are then. `prices` are by what is set."""
    runs = [*runs_of(experiment, scale)]
    new = [run for run in runs if run.config_hash not in counted]
    counted.update(run.config_hash for run in runs)
    seconds = 0.0
    for run in new:
        kind = json.dumps([run.study, run.options], sort_keys=True)
        if kind not in prices:
            prices[kind] = price(run)
        seconds += prices[kind].of(run.options)
    cells = len([*experiment.cells()])
    return Cost(experiment.name, cells, experiment.scales[scale].seeds, len(new), seconds)


def price(run: Run) -> Price:
    """By three short runs of it."""
    has_looks = "looks" in run.options
    bare: dict[str, Any] = {"measures": []} if "measures" in run.options else {}
    if "episodes" in run.options:
        bare["episodes"] = 0
    one = {"looks": 1} if has_looks else {}
    whole = timed(run, {"steps": FEW, **one})
    few = timed(run, {"steps": FEW, **one, **bare}) if bare else whole
    more = timed(run, {"steps": MORE, **one, **bare})
    step = max(0.0, (more - few) / (MORE - FEW))
    look = 0.0
    if has_looks:
        looks = timed(run, {"steps": MORE, "looks": LOOKS, **bare})
        look = max(0.0, (looks - more) / (LOOKS - 1))
    return Price(step, look, max(0.0, whole - FEW * step - (look if has_looks else 0.0)))


def timed(run: Run, changed: Mapping[str, Any]) -> float:
    """Seconds of this process."""
    study = study_named(run.study)
    options = resolve(study, merged(run.options, changed))
    began = time.process_time()
    study.run(options, run.seed, torch.device("cpu"))
    return time.process_time() - began


def say(row: Cost) -> None:
    """A line of the table."""
    each = row.seconds / row.runs if row.runs else 0.0
    sys.stdout.write(
        f"{row.experiment:26} {row.arms:3} arms {row.seeds:3} seeds {row.runs:4} runs "
        f"{each:7.0f} s each {row.seconds / 60:7.1f} min\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    main()
