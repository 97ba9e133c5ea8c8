"""At the scale `smoke` every experiment runs through and yields its metric."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loopdit.eval.experiments.experiment import Experiment, experiments, named
from loopdit.eval.experiments.plan import runs_of
from loopdit.eval.experiments.runner import run_all
from loopdit.eval.experiments.store import results

# Some that are quick; the other test has all.
QUICK = ("02_multi_hop", "20_in_context", "ours_loops_or_steps")


def require_metric(experiment: Experiment, out: Path) -> None:
    found = results(out, experiment, "smoke")
    cells = len(list(experiment.cells()))
    assert len(found) == cells * experiment.scales["smoke"].seeds, experiment.name
    for result in found:
        assert experiment.metric in result.metrics, experiment.name
        if experiment.baseline_metric:
            assert experiment.baseline_metric in result.metrics, experiment.name
        for learned in experiment.learned:
            named_there = {learned.metric, learned.chance} - {""}
            assert named_there <= set(result.metrics), experiment.name
        assert result.parameters > 0


@pytest.mark.system
@pytest.mark.parametrize("name", QUICK)
def test_an_experiment_yields_its_metric_in_every_cell(name: str, tmp_path: Path):
    experiment = named(name)
    run_all(list(runs_of(experiment, "smoke")), tmp_path, 1, "processes", "cpu")
    require_metric(experiment, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_all_experiments_yield_their_metrics_and_are_listed_as_done(tmp_path: Path):
    command = [sys.executable, "-m", "loopdit.eval.experiments.command"]
    subprocess.run([*command, "run", "all", "scale=smoke", f"out={tmp_path}"], check=True)
    for experiment in experiments().values():
        if not experiment.missing:
            require_metric(experiment, tmp_path)
    assert all(row["missing"] or _done(row) for row in listed(tmp_path))


def listed(out: Path) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "loopdit.eval.experiments.command", "list", "json=true"]
    said = subprocess.run([*command, f"out={out}"], check=True, capture_output=True, text=True)
    return json.loads(said.stdout)["experiments"]


def _done(row: dict[str, Any]) -> bool:
    smoke = row["scales"]["smoke"]
    return smoke["done"] == smoke["runs"] and smoke["failed"] == 0
