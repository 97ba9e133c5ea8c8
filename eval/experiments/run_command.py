"""`policy-experiment run`: run what an output folder lacks of experiments at a scale.

Finished cells are on the disk at once, so a command that was stopped and is given again goes on.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopdit.command import Command, option, require_choice
from loopdit.errors import ConfigError, EvaluationFailed
from loopdit.eval.experiments.experiment import SCALES, Experiment, experiments, named
from loopdit.eval.runs.pools import LAUNCHER_HELP, require_launcher
from loopdit.machine import usable_cores
from loopdit.subcommand import run_subcommand
from loopdit.whole_file import require_folder

COMMAND = Command(
    name="policy-experiment run",
    folder="experiment_run",
    summary="run what is missing of the experiments at a scale; what is there is not run again.",
    examples=(
        "policy-experiment run all scale=smoke out=outputs/experiments",
        "policy-experiment run 6 scale=cpu",
        "policy-experiment run ours_any_k scale=cpu seeds=10",
        "policy-experiment run 12 options='{steps: 100, model: {width: 64}}'",
        "policy-experiment run -m name=6,12,15 scale=paper hydra/launcher=submitit_slurm",
    ),
)
ALL = "all"
_REASONS = 5  # failures that are told; all are in the files


@dataclass(frozen=True)
class RunConfig:
    """What is run where."""

    name: str = option("???", f"an experiment by name or number, or {ALL}; the first word is it")
    scale: str = option("smoke", f"how long and how often: {', '.join(SCALES)}")
    out: str = option("outputs/experiments", "folder of the results")
    seeds: int = option(0, "seeds a cell; 0: as the scale has them")
    workers: int = option(0, "runs at once; 0: as many as there are cores (1 with device=cuda)")
    launcher: str = option("processes", LAUNCHER_HELP)
    device: str = option("cpu", "auto, cpu or cuda")
    options: Any = option(
        None, "options of the study, laid over those of the experiment: '{steps: 100}'"
    )

    def __post_init__(self) -> None:
        require_choice("scale", self.scale, SCALES)
        require_launcher(self.launcher)
        for name in ("seeds", "workers"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}={getattr(self, name)} must be 0 or more.")
        if not isinstance(self.options, dict | None):
            raise ConfigError(f"options={self.options} must be written options='{{name: value}}'.")
        if self.options and self.name == ALL:
            raise ConfigError("options= are of one study: name the experiment, not all.")


def main(arguments: Sequence[str]) -> None:
    """Entry point of `policy-experiment run`."""
    run_subcommand(COMMAND, RunConfig, run, arguments, places=("name",))


def run(config: RunConfig) -> None:
    """Plan, run, say what came of it. Raises EvaluationFailed where a run failed."""
    from loopdit.eval.experiments.plan import runs_of
    from loopdit.eval.experiments.runner import require_device, run_all

    device = require_device(config.device)
    chosen = [e for e in chosen_experiments(config.name) if not e.missing]
    out = Path(config.out)
    require_folder(out)
    runs = [
        run
        for experiment in chosen
        for run in runs_of(experiment, config.scale, config.seeds, config.options)
    ]
    workers = config.workers or (1 if device == "cuda" else usable_cores())
    tally = run_all(runs, out, min(workers, max(1, len(runs))), config.launcher, device)
    sys.stdout.write(
        f"{tally.run} run, {tally.found} found, {len(tally.failed)} failed -> "
        f"{out / config.scale}\n"
    )
    if tally.failed:
        raise EvaluationFailed(f"{len(tally.failed)} runs failed: {_reasons(tally.failed)}")


def _reasons(failed: Sequence[str]) -> str:
    """Each reason once, with the first run that it ended; a few of them."""
    runs: dict[str, list[str]] = {}
    for line in failed:
        run, _, reason = line.partition(": ")
        runs.setdefault(reason, []).append(run)
    told = [
        f"{first}{f' and {len(others)} others' if others else ''}: {reason}"
        for reason, (first, *others) in runs.items()
    ]
    more = len(told) - _REASONS
    return " ".join([*told[:_REASONS], *([f"And {more} more reasons."] if more > 0 else [])])


def chosen_experiments(name: str) -> list[Experiment]:
    """Raises ConfigError with the nearest name where there is none, or the paper has none."""
    if name == ALL:
        return list(experiments().values())
    experiment = named(name)
    if experiment.missing:
        raise ConfigError(f"experiment {name} is missing in the paper: there is nothing to run.")
    return [experiment]
