"""Evaluations beside training: what they may never do, what is kept, what survives."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.policy.policies import SMALL, small_spec, small_store
from tests.policy.trainings import begun, command, require_equal_weights, rows, run, weights

from loopdit.datasets.store import EpisodeStore
from loopdit.errors import ConfigError
from loopdit.policy.checkpoint import CheckpointContent, load_checkpoint, write_checkpoint
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.policy.training.closed_loop import ClosedLoop, EvaluateConfig, Evaluated

REACH = ("evaluate.env=reach", "evaluate.every=20", "evaluate.episodes=2")


@pytest.fixture(scope="module")
def reach(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose `data` are demonstrations of a real task, as small as they get."""
    from loopdit.eval.collect import CollectConfig, collect

    folder = tmp_path_factory.mktemp("reach")
    collect(CollectConfig(env="reach", episodes=3, image_size=16, out=str(folder / "data")))
    return folder


def content(value: float = 1.0) -> CheckpointContent:
    policy = LoopedPolicy(small_spec(), SMALL)
    with torch.no_grad():
        policy.model.action_out.bias.fill_(value)
    return CheckpointContent.of(policy, {"step": value})


def closed_loop(out: Path, env: str = "reach") -> tuple[ClosedLoop, list[str], list[Evaluated]]:
    said: list[str] = []
    results: list[Evaluated] = []
    config = EvaluateConfig(env=env, every=10, episodes=1)
    return ClosedLoop(config, out, 2, said.append, results.append), said, results


def measured(out: Path, step: int, successes: int) -> None:
    """As policy-eval and training leave it when they are killed right after the last rollout."""
    folder = out / "evaluations" / f"step-{step:06d}"
    folder.mkdir(parents=True)
    row = {"episodes": 10, "successes": successes, "ci95": [0.1, 0.9]}
    (folder / "eval.json").write_text(json.dumps({"results": [row]}))
    write_checkpoint(folder / "snapshot", content(float(step)))


@pytest.mark.system
def test_snapshots_are_evaluated_and_the_training_does_not_notice(reach: Path, tmp_path: Path):
    data = f"data={reach / 'data'}"
    plain = run(command(tmp_path, data, "steps=50", f"out={tmp_path / 'plain'}"))
    assert plain.returncode == 0, plain.stderr
    done = run(command(tmp_path, data, "steps=50", *REACH))
    assert done.returncode == 0, done.stderr
    require_equal_weights(tmp_path / "out", tmp_path / "plain")

    evaluated = [row for row in rows(tmp_path / "out") if "evaluation" in row]
    assert evaluated[-1]["step"] == 50
    for row in evaluated:
        folder = tmp_path / "out" / "evaluations" / f"step-{row['step']:06d}"
        result = json.loads((folder / "eval.json").read_text())
        assert result["seeds"][0] == 800_000
        assert row["evaluation"]["successes"] == result["results"][0]["successes"]
        assert row["evaluation"]["episodes"] == 2
    best = load_checkpoint(tmp_path / "out" / "best").provenance["step"]
    assert best in {row["step"] for row in evaluated}
    assert f"best: step {best}, " in done.stdout
    assert f"next: policy-export checkpoint={tmp_path / 'out' / 'best'}" in done.stdout


@pytest.mark.system
def test_an_interrupted_evaluation_is_taken_up_by_the_resumed_training(reach: Path, tmp_path: Path):
    data = f"data={reach / 'data'}"
    often = ("evaluate.every=40", "evaluate.episodes=40")
    options = (data, "steps=40", "save_every_s=0.1", *REACH[:1], *often)
    with begun(command(tmp_path, *options)) as process:
        journal = tmp_path / "out" / "evaluations" / "step-000040" / "rollouts.jsonl"
        while not journal.exists() or len(journal.read_text().splitlines()) < 3:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    kept = journal.read_text().splitlines()
    again = run(command(tmp_path, *options, "resume=true"))
    assert again.returncode == 0, again.stderr
    assert "nothing to do" in again.stdout
    assert journal.read_text().splitlines()[: len(kept) - 1] == kept[:-1]
    results = [row["evaluation"] for row in rows(tmp_path / "out") if "evaluation" in row]
    assert [result["episodes"] for result in results] == [40]


@pytest.mark.system
def test_an_environment_that_does_not_fit_is_refused_before_training(tmp_path: Path):
    small_store(tmp_path / "data")
    done = run(command(tmp_path, "steps=5", "evaluate.env=reach"))
    assert done.returncode == 1
    assert "evaluate.env=reach cannot be evaluated in" in done.stderr
    assert "proprio" in done.stderr
    assert not (tmp_path / "out" / "checkpoint.json").exists()


@pytest.mark.system
def test_an_environment_that_is_refused_costs_an_earlier_training_nothing(tmp_path: Path):
    small_store(tmp_path / "data")
    assert run(command(tmp_path, "steps=5")).returncode == 0
    measured(tmp_path / "out", 5, 7)
    before = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    done = run(command(tmp_path, "steps=5", "overwrite=true", "evaluate.env=no-such-place"))
    assert done.returncode == 1
    assert {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()} == before


@pytest.mark.system
def test_a_folder_may_have_any_name(reach: Path, tmp_path: Path):
    out = tmp_path / "a, b=[1] {it's}"
    loop, said, results = closed_loop(out)
    policy = LoopedPolicy(EpisodeStore.open(reach / "data").spec, SMALL)
    loop.snapshot(10, CheckpointContent.of(policy, {}))
    assert loop.finish() is not None, said
    assert [result.step for result in results] == [10]


@pytest.mark.system
def test_a_failing_evaluation_is_told_and_stops_nothing(tmp_path: Path):
    loop, said, results = closed_loop(tmp_path, env="no-such-place")
    loop.snapshot(10, content())
    assert loop.finish() is None
    assert not results
    assert "the evaluation of step 10 failed" in said[-1]
    assert "no-such-place" in said[-1]


@pytest.mark.system
def test_one_evaluation_runs_at_a_time_and_the_newest_snapshot_waits(tmp_path: Path):
    loop, said, _ = closed_loop(tmp_path, env="no-such-place")
    for step in (10, 20, 30):
        loop.snapshot(step, content())
    assert said == ["step 20 is not evaluated: step 30 is due, and one runs"]
    loop.finish()
    assert [line.split(":")[0] for line in said if "failed" in line] == [
        "the evaluation of step 10 failed",
        "the evaluation of step 30 failed",
    ]


def test_the_best_is_of_the_highest_success_and_the_later_of_equals(tmp_path: Path):
    for step, successes in ((10, 3), (20, 7), (30, 7), (40, 5)):
        measured(tmp_path, step, successes)
    loop, _, _ = closed_loop(tmp_path)
    loop.take_up(40)
    assert [result.success_rate for result in loop.results] == [0.3, 0.7, 0.7, 0.5]
    assert loop.best is not None
    assert loop.best.step == 30
    assert weights(tmp_path / "best")["model.action_out.bias"][0] == 30.0


def test_evaluations_of_steps_that_are_done_again_are_forgotten(tmp_path: Path):
    for step, successes in ((10, 3), (20, 7)):
        measured(tmp_path, step, successes)
    loop, _, _ = closed_loop(tmp_path)
    loop.take_up(15)
    assert [result.step for result in loop.results] == [10]
    assert not (tmp_path / "evaluations" / "step-000020").exists()


def test_a_snapshot_that_was_measured_before_is_not_measured_again(tmp_path: Path):
    measured(tmp_path, 10, 4)
    loop, said, results = closed_loop(tmp_path, env="no-such-place")
    loop.take_up(10)
    loop.snapshot(10, content())
    assert loop.finish() == Evaluated(10, 10, 4, (0.1, 0.9))
    assert not said
    assert not results


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"every": 0}, "evaluate.every=0"),
        ({"seed": 900_000}, "selection seed"),
        ({"seed": 5}, "selection seed"),
    ],
)
def test_evaluations_that_cannot_work_are_refused(changes: dict[str, Any], said: str):
    with pytest.raises(ConfigError, match=said):
        EvaluateConfig(env="lift", **changes)
