"""Results of real experiments with numbers of ours: what a report is made of, without training."""

import math
from pathlib import Path

import numpy as np

from loopdit.eval.experiments.experiment import named
from loopdit.eval.experiments.plan import Run, runs_of
from loopdit.eval.experiments.store import CellResult, save

LOOPS = range(1, 9)


def store(out: Path, name: str, scale: str = "cpu", seeds: int = 0) -> None:
    """Save a result for each run of one of the experiments that `_metrics` knows."""
    for run in runs_of(named(name), scale, seeds):
        own = np.random.default_rng([run.seed, run.index]).normal(0, 0.01)
        save(out, run, _result(run, math.exp(float(own))))


def _result(run: Run, noise: float) -> CellResult:
    cosines = [1 - 0.08 * noise * 0.4**loop for loop in LOOPS]
    return CellResult(
        experiment=run.experiment,
        number=run.number,
        scale=run.scale,
        factors=run.factors,
        seed=run.seed,
        metrics=_metrics(run, noise),
        curve={"loop": [*map(float, LOOPS)], "cosine": cosines, "null_cosine": cosines},
        config_hash=run.config_hash,
        options=run.options,
        parameters=1_491_409,
        wall_s=60.0,
        provenance={"commit": "0123abc", "machine": {"cpu": "a <fast> one"}},
    )


def _metrics(run: Run, noise: float) -> dict[str, float]:
    if run.number == 6:
        loss = {"3b4l": 0.135, "6b2l_d95": 0.2, "12b1l_d68": 0.234, "12b1l_d128": 0.234}
        total = loss[run.factors["system"]] * noise
        return {"total_loss": total, "main_loss": total / 10, "constant_loss": 0.5}
    if run.number == 11:  # 4 loops are far from the same as 1
        error = {"1": 0.1, "4": 0.05}[run.factors["loops"]] * noise
        return {"ood_error": error, "main_loss": error / 2, "constant_main_loss": 0.4}
    if run.number == 25:
        of_each = {f"action_mse_{runner}": 0.05 * noise for runner in ("Ant-v5", "Swimmer-v5")}
        return {"action_mse": 0.05 * noise, "constant_action_mse": 0.1, **of_each}
    raise KeyError(run.number)
