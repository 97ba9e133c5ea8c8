import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.policy.policies import SMALL, small_spec, small_store

from loopdit.datasets.statistics import compute_statistics
from loopdit.datasets.windows import WindowSampler
from loopdit.errors import CheckpointError, ConfigError, SpecMismatch, StoreError
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.policy.training.config import TrainConfig
from loopdit.policy.training.train import train
from loopdit.policy.training.trainer import Trainer


def config(tmp_path: Path, **changes: object) -> TrainConfig:
    settings: dict[str, object] = {
        "data": str(tmp_path / "data"),
        "out": str(tmp_path / "out"),
        "steps": 12,
        "batch_size": 8,
        "warmup_steps": 2,
        "threads": 1,
        "policy": SMALL,
    }
    return TrainConfig(**{**settings, **changes})  # pyright: ignore[reportArgumentType] - a test's shorthand


def weights(tmp_path: Path) -> dict[str, torch.Tensor]:
    return load_file(tmp_path / "out" / "model.safetensors")


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path: Path):
    small_store(tmp_path / "data")
    whole = tmp_path / "whole"
    train(config(tmp_path, out=str(whole)))

    class Interrupted:
        """A clock that stands for the user's Ctrl-C: it is asked once or twice a step."""

        calls = 0

        def __call__(self) -> float:
            self.calls += 1
            if self.calls == 14:
                raise KeyboardInterrupt
            return 0.0

    with pytest.raises(KeyboardInterrupt):
        train(config(tmp_path), clock=Interrupted())
    stopped_at = json.loads((tmp_path / "out" / "checkpoint.json").read_text())["provenance"]
    assert 0 < stopped_at["step"] < 12
    train(config(tmp_path, resume=True))

    resumed = weights(tmp_path)
    for name, tensor in load_file(whole / "model.safetensors").items():
        assert torch.equal(tensor, resumed[name]), name


def test_training_learns_what_the_demonstrations_show(tmp_path: Path):
    store = small_store(tmp_path / "data", episodes=20)
    torch.manual_seed(0)
    policy = LoopedPolicy(store.spec, SMALL)
    policy.normalizer.fit(compute_statistics(store))
    settings = config(tmp_path, steps=250, batch_size=32, distill=0.0)
    trainer = Trainer(policy, settings, torch.device("cpu"))
    sampler = WindowSampler(store, SMALL.action_horizon, 32, seed=0)
    first = torch.stack([trainer.train_step(sampler.batch(i)) for i in range(10)]).mean(0)
    for step in range(10, 240):
        trainer.train_step(sampler.batch(step))
    last = torch.stack([trainer.train_step(sampler.batch(i)) for i in range(240, 250)]).mean(0)
    assert (last < 0.6 * first).all(), (first, last)  # at every exit


def test_the_average_is_what_is_saved(tmp_path: Path):
    small_store(tmp_path / "data")
    train(config(tmp_path))
    state = torch.load(tmp_path / "out" / "training_state.pt", weights_only=True)
    for name, tensor in weights(tmp_path).items():
        assert torch.equal(tensor, state["average"][name])
    assert any(not torch.equal(state["average"][n], state["policy"][n]) for n in state["policy"])


def test_minutes_end_the_run_and_its_schedule(tmp_path: Path):
    small_store(tmp_path / "data")

    class Clock:
        now = 0.0

        def __call__(self) -> float:
            self.now += 10.0
            return self.now

    train(config(tmp_path, steps=10_000, minutes=1.0), clock=Clock())
    rows = (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    last = json.loads(rows[-1])
    assert last["step"] < 20
    assert last["learning_rate"] < 0.3 * 1e-3
    assert all(math.isfinite(loss) for loss in last["loss"].values())


def test_a_checkpoint_is_not_overwritten_unasked(tmp_path: Path):
    small_store(tmp_path / "data")
    train(config(tmp_path, steps=2))
    with pytest.raises(CheckpointError, match="resume=true"):
        train(config(tmp_path, steps=2))
    train(config(tmp_path, steps=2, overwrite=True))


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
    row = json.loads(metrics.read_text().splitlines()[-1])
    with metrics.open("a") as file:  # what a run that was killed after its checkpoint leaves
        file.write(json.dumps({**row, "step": 5}) + "\n" + '{"step": 6, "elap')
    train(config(tmp_path, steps=6, resume=True))
    assert [json.loads(line)["step"] for line in metrics.read_text().splitlines()] == [3, 6]


def test_resuming_another_model_is_refused(tmp_path: Path):
    small_store(tmp_path / "data")
    train(config(tmp_path, steps=2))
    with pytest.raises(CheckpointError, match="same policy options"):
        train(config(tmp_path, resume=True, policy=type(SMALL)(width=64, action_horizon=4)))


def test_a_missing_store_is_said_before_anything_is_written(tmp_path: Path):
    with pytest.raises(StoreError):
        train(config(tmp_path))
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_place_of_the_checkpoint_is_named(tmp_path: Path):
    small_store(tmp_path / "data")
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ConfigError, match="it is a file"):
        train(config(tmp_path))
    assert (tmp_path / "out").read_text() == "mine"


def test_a_diverging_run_stops_with_its_last_checkpoint_intact(tmp_path: Path):
    small_store(tmp_path / "data")
    train(config(tmp_path, steps=2))
    before = weights(tmp_path)
    with pytest.raises(ConfigError, match="Lower learning_rate"):
        train(config(tmp_path, steps=60, overwrite=True, learning_rate=1e30, warmup_steps=0))
    after = weights(tmp_path)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 0}, "steps=0"),
        ({"device": "tpu"}, "Use auto, cpu or cuda"),
        ({"distill": 1.0}, "distill=1.0"),
        ({"resume": True, "overwrite": True}, "exclude each other"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    tmp_path: Path, changes: dict[str, object], said: str
):
    with pytest.raises(ConfigError, match=said):
        config(tmp_path, **changes)
