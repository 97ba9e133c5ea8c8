"""Whatever stops a training, going on gives the run that was never stopped, to the bit."""

import json
import random
import signal
import sys
import time
from pathlib import Path

import pytest
from tests.policy.interrupting import Interrupting
from tests.policy.policies import SMALL, small_spec, small_store
from tests.policy.trainings import (
    begun,
    command,
    config,
    curve,
    require_equal_weights,
    rows,
    run,
)

from loopdit.datasets.episode_filter import EpisodeFilter
from loopdit.errors import CheckpointError, SpecMismatch
from loopdit.folder_lock import alone_in
from loopdit.policy.checkpoint import load_training_state
from loopdit.policy.training.train import train


@pytest.mark.parametrize("stopped_at", [9, 14, 20])
def test_a_resumed_run_has_the_weights_and_the_curve_of_an_uninterrupted_one(
    tmp_path: Path, stopped_at: int
):
    small_store(tmp_path / "data", episodes=24)
    options = {"steps": 14, "validate_every": 4, "log": type(config(tmp_path).log)(every=5)}
    train(config(tmp_path, out=str(tmp_path / "whole"), **options))
    with pytest.raises(KeyboardInterrupt):
        train(config(tmp_path, **options), clock=Interrupting(stopped_at))
    step = json.loads((tmp_path / "out" / "checkpoint.json").read_text())["provenance"]["step"]
    assert 0 < step < 14
    train(config(tmp_path, resume=True, **options))

    require_equal_weights(tmp_path / "out", tmp_path / "whole")
    assert [row["step"] for row in rows(tmp_path / "whole")] == [4, 5, 8, 10, 12, 14]
    assert curve(tmp_path / "out") == curve(tmp_path / "whole")


def test_rows_of_metrics_do_not_depend_on_when_checkpoints_were_written(tmp_path: Path):
    small_store(tmp_path / "data")
    train(config(tmp_path, steps=7, save_every_s=0.0))
    train(config(tmp_path, steps=7, out=str(tmp_path / "rarely")))
    assert curve(tmp_path / "out") == curve(tmp_path / "rarely")
    require_equal_weights(tmp_path / "out", tmp_path / "rarely")


@pytest.mark.system
def test_a_run_that_is_killed_again_and_again_is_the_run_that_was_not(tmp_path: Path):
    """kill -9 at random moments of real processes, each of which saves as often as it can."""
    small_store(tmp_path / "data", episodes=24)
    options = ("steps=150", "save_every_s=0.1", "validate_every=60", "log.every=20")
    whole = run([*command(tmp_path, *options), f"out={tmp_path / 'whole'}"])
    assert whole.returncode == 0, whole.stderr

    moments = random.Random(5)
    kills = 0
    for _ in range(30):
        resume = (tmp_path / "out" / "checkpoint.json").exists()
        with begun(command(tmp_path, *options, *(["resume=true"] if resume else []))) as process:
            if kills < 4:
                time.sleep(moments.uniform(0.0, 0.5))
                process.send_signal(signal.SIGKILL)
                kills += 1
            said, _ = process.communicate()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, said
    assert kills == 4
    require_equal_weights(tmp_path / "out", tmp_path / "whole")
    assert curve(tmp_path / "out") == curve(tmp_path / "whole")


@pytest.mark.system
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_after_a_whole_step_and_says_how_to_go_on(
    tmp_path: Path, number: signal.Signals
):
    small_store(tmp_path / "data")
    with begun(command(tmp_path, "steps=100000")) as process:
        process.send_signal(number)
        said, _ = process.communicate()
    assert process.returncode == 130
    step = json.loads((tmp_path / "out" / "checkpoint.json").read_text())["training"]["step"]
    assert step > 0
    assert f"saved step {step}; go on with resume=true" in said


@pytest.mark.system
def test_a_disk_that_fills_up_ends_the_run_and_keeps_the_checkpoint_before(tmp_path: Path):
    """A limit on file size stands in for the disk: the kernel refuses the write in the same way."""
    small_store(tmp_path / "data")
    code = f"""
import resource, signal
from pathlib import Path
from tests.policy.trainings import config
from loopdit.policy.checkpoint import load_training_state
from loopdit.policy.training.train import train
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
readings = 0
def clock():
    global readings
    readings += 1
    if readings == 12:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
    return float(readings)
train(config(Path({str(tmp_path)!r}), steps=500, save_every_s=0.0), clock)
"""
    done = run([sys.executable, "-c", code])
    assert "CheckpointError: cannot write the checkpoint" in done.stderr
    assert "what was there before is intact" in done.stderr
    state, _ = load_training_state(tmp_path / "out")
    assert 1 <= state.numbers["step"] < 12
    done = run(command(tmp_path, "steps=14", "resume=true"))
    assert done.returncode == 0, done.stderr


def test_resuming_with_other_data_is_refused(tmp_path: Path):
    small_store(tmp_path / "data")
    train(config(tmp_path, steps=2))
    small_store(tmp_path / "more", episodes=7)
    with pytest.raises(CheckpointError, match="other episodes"):
        train(config(tmp_path, data=str(tmp_path / "more"), resume=True))


def test_resuming_with_data_of_another_spec_names_the_field(tmp_path: Path):
    small_store(tmp_path / "data")
    train(config(tmp_path, steps=2))
    small_store(tmp_path / "wider", spec=small_spec(proprio=4))
    with pytest.raises(SpecMismatch, match=r"proprio.shape is \[3\], there \[4\]"):
        train(config(tmp_path, data=str(tmp_path / "wider"), resume=True))


def test_resuming_with_other_options_is_refused_and_changes_nothing(tmp_path: Path):
    small_store(tmp_path / "data")
    train(config(tmp_path, steps=2))
    before = (tmp_path / "out" / "checkpoint.json").read_text()
    with pytest.raises(CheckpointError, match=r"seed=9 where it had 0"):
        train(config(tmp_path, steps=4, seed=9, resume=True))
    train(config(tmp_path, steps=1, resume=True))  # fewer than it has: nothing to do
    assert (tmp_path / "out" / "checkpoint.json").read_text() == before


def test_metrics_of_steps_that_are_done_again_are_dropped(tmp_path: Path):
    small_store(tmp_path / "data")
    train(config(tmp_path, steps=3))
    metrics = tmp_path / "out" / "metrics.jsonl"
    row = rows(tmp_path / "out")[-1]
    with metrics.open("a") as file:  # what a run that was killed after its checkpoint leaves
        file.write(json.dumps({**row, "step": 5}) + "\n" + '{"step": 6, "elap')
    train(config(tmp_path, steps=6, resume=True))
    assert [row["step"] for row in rows(tmp_path / "out")] == [3, 6]


def test_resuming_another_model_is_refused(tmp_path: Path):
    small_store(tmp_path / "data")
    train(config(tmp_path, steps=2))
    with pytest.raises(CheckpointError, match=r"policy\.width=64 where it had 32"):
        train(config(tmp_path, resume=True, policy=type(SMALL)(width=64, action_horizon=4)))


def test_options_that_differ_are_named_as_they_are_written(tmp_path: Path):
    small_store(tmp_path / "data")
    train(config(tmp_path, steps=2))
    changed = config(tmp_path, resume=True, filter=EpisodeFilter(min_steps=3))
    with pytest.raises(CheckpointError, match=r"options: filter\.min_steps=3 where it had 0\. "):
        train(changed)


def test_two_trainings_into_one_folder_are_refused(tmp_path: Path):
    small_store(tmp_path / "data")
    (tmp_path / "out").mkdir()
    with (
        alone_in(tmp_path / "out", CheckpointError("never raised")),
        pytest.raises(CheckpointError, match="another training writes"),
    ):
        train(config(tmp_path))
