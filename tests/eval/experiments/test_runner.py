"""Running: what is there is not run again, what fails is named, a dead worker costs its cell."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.eval.experiments.tiny import tiny

from loopdit.errors import ConfigError
from loopdit.eval.experiments.experiment import Experiment
from loopdit.eval.experiments.plan import runs_of
from loopdit.eval.experiments.runner import Tally, run_all
from loopdit.eval.experiments.store import failures, load, result_path, results


def run(experiment: Experiment, out: Path, seeds: int = 0, workers: int = 1) -> Tally:
    runs = list(runs_of(experiment, "smoke", seeds))
    return run_all(runs, out, workers, "processes", "cpu")


def files(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*.json")}


def test_a_result_has_what_was_run_and_what_came_of_it(tmp_path: Path):
    experiment = tiny()
    assert run(experiment, tmp_path) == Tally(run=4, found=0, failed=())
    first, *_ = results(tmp_path, experiment, "smoke")
    path = result_path(tmp_path, next(runs_of(experiment, "smoke")))
    assert path.name == f"none-0-{first.config_hash[:8]}.json"
    assert (first.number, first.factors, first.seed) == (99, {"pairs": "none"}, 0)
    assert first.options["steps"] == 3
    assert first.curve is not None
    assert first.curve["step"] == [2.0, 3.0]
    assert set(first.metrics) >= {"guess_error", "constant_main_loss", "total_loss"}
    assert "torch" in first.provenance["versions"]
    assert json.loads(path.read_text())["format"] == "loopdit-experiment-cell"


def test_what_is_there_is_not_run_again_and_more_seeds_are_added(tmp_path: Path):
    run(tiny(), tmp_path)
    before = files(tmp_path)
    assert run(tiny(), tmp_path) == Tally(0, 4, ())
    assert files(tmp_path) == before
    assert run(tiny(), tmp_path, seeds=3) == Tally(2, 4, ())


def test_another_option_is_another_run_and_both_are_kept_apart(tmp_path: Path):
    run(tiny(), tmp_path, seeds=1)
    longer = tiny("scales: {smoke: {seeds: 1, steps: 4}, cpu: {seeds: 1}, paper: {seeds: 1}}")
    assert run(longer, tmp_path) == Tally(2, 0, ())
    assert len(files(tmp_path)) == 4
    assert [result.options["steps"] for result in results(tmp_path, longer, "smoke")] == [4, 4]


def test_a_cell_that_another_experiment_has_run_is_taken_over_as_ones_own(tmp_path: Path):
    run(tiny(), tmp_path, seeds=1)
    other = tiny("number: 98\nfactors: {given: {pairs: {task: context_2}}}")
    object.__setattr__(other, "name", "other")
    assert run(other, tmp_path, seeds=1) == Tally(run=0, found=1, failed=())
    (result,) = results(tmp_path, other, "smoke")
    (_, source) = results(tmp_path, tiny(), "smoke")
    assert (result.experiment, result.factors) == ("other", {"given": "pairs"})
    assert result.metrics == source.metrics


def test_a_cell_is_the_same_whoever_runs_it(tmp_path: Path):
    here, workers = tmp_path / "here", tmp_path / "workers"
    run(tiny(), here)
    run(tiny(), workers, workers=2)
    for a, b in zip(results(here, tiny(), "smoke"), results(workers, tiny(), "smoke"), strict=True):
        assert (a.metrics, a.curve, a.parameters) == (b.metrics, b.curve, b.parameters)


def test_seeds_differ_in_weights_data_and_noise_and_not_in_what_is_held_out(tmp_path: Path):
    run(tiny(), tmp_path)
    first, second = (r.metrics for r in results(tmp_path, tiny(), "smoke")[:2])
    assert first["guess_error"] != second["guess_error"]
    # Of the same held-out canvases; the mean that it says is of other training canvases.
    assert first["constant_main_loss"] != second["constant_main_loss"]


def test_what_is_no_number_is_a_failure_with_its_step_and_is_tried_again(tmp_path: Path):
    broken = tiny(
        "scales: {smoke: {seeds: 1, steps: 60, learning_rate: 1.0e+30}, cpu: {seeds: 1},"
        " paper: {seeds: 1}}"
    )
    tally = run(broken, tmp_path)
    assert tally.run == 2
    assert len(tally.failed) == 2
    assert "tiny none seed 0: the loss of step" in tally.failed[0]
    assert results(tmp_path, broken, "smoke") == []
    assert [failure.metrics for failure in failures(tmp_path, broken, "smoke")] == [{}, {}]
    assert run(broken, tmp_path).run == 2


def test_two_runs_do_not_write_to_one_experiment_at_once(tmp_path: Path):
    from loopdit.folder_lock import alone_in

    folder = tmp_path / "smoke" / "tiny"
    folder.mkdir(parents=True)
    with (
        alone_in(folder, ConfigError("busy")),
        pytest.raises(ConfigError, match="another run writes to"),
    ):
        run(tiny(), tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read as a result"),
        ('{"format": "other"}', "is no result of an experiment"),
        ('{"format": "loopdit-experiment-cell", "version": 2}', "has version 2"),
        ('{"format": "loopdit-experiment-cell", "version": 1}', "is no whole result"),
    ],
)
def test_a_file_that_is_no_result_is_refused_and_named(tmp_path: Path, text: str, said: str):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        load(path)
    assert said in str(refused.value)
    assert str(path) in str(refused.value)


@pytest.mark.system
def test_a_worker_that_is_killed_costs_its_cell_and_a_command_that_is_killed_goes_on(
    tmp_path: Path,
):
    options = "options={steps: 60, model: {width: 32, heads: 2, blocks: 1}}"
    words = ["run", "20", f"out={tmp_path}", "seeds=3", options]
    command = [sys.executable, "-m", "loopdit.eval.experiments.command", *words]
    with subprocess.Popen([*command, "workers=2"], stdout=subprocess.DEVNULL) as running:
        _wait_for(tmp_path, 2, running)
        victim = _workers(running.pid)[0]
        os.kill(victim, signal.SIGKILL)
        there = len(files(tmp_path))
        _wait_for(tmp_path, there + 2, running)
        assert running.poll() is None
        running.kill()
    kept = files(tmp_path)
    assert 4 <= len(kept) < 12
    assert not list(tmp_path.rglob(".*.json*"))
    said = subprocess.run(
        [*command, "workers=1"], capture_output=True, text=True, check=True, timeout=200
    ).stdout
    assert f"{12 - len(kept)} run, {len(kept)} found, 0 failed" in said
    after = files(tmp_path)
    assert all(after[name] == content for name, content in kept.items())


def _wait_for(out: Path, count: int, running: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 200
    while len(files(out)) < count:
        assert running.poll() is None, "the command ended"
        assert time.monotonic() < deadline, f"fewer than {count} results"
        time.sleep(0.02)


def _workers(parent: int) -> list[int]:
    """The processes it spawned to work, not the one that tracks their resources."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    spawned = [c for c in children if b"spawn_main" in Path(f"/proc/{c}/cmdline").read_bytes()]
    return [int(child) for child in spawned]
