import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.policy.policies import SMALL, small_store
from tests.policy.trainings import config, rows, weights

from loopdit.datasets.statistics import compute_statistics
from loopdit.datasets.windows import WindowSampler
from loopdit.errors import CheckpointError, ConfigError, StoreError
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.policy.objectives.depth import DepthConfig
from loopdit.policy.objectives.objective import ObjectiveConfig
from loopdit.policy.training.processes import joined_processes
from loopdit.policy.training.train import train
from loopdit.policy.training.trainer import Trainer


def test_training_learns_what_the_demonstrations_show(tmp_path: Path):
    store = small_store(tmp_path / "data", episodes=20)
    torch.manual_seed(0)
    policy = LoopedPolicy(store.spec, SMALL)
    policy.normalizer.fit(compute_statistics(store))
    settings = config(tmp_path, steps=250, batch_size=32, depth=DepthConfig(distill=0.0))
    sampler = WindowSampler(store, SMALL.action_horizon, 32, seed=0)
    with joined_processes("cpu", "fp32", compiled=False, threads=1) as accelerator:
        trainer = Trainer(policy, settings, accelerator)
        errors = torch.stack([trainer.train_step(sampler.batch(i)).error for i in range(250)])
    first, last = errors[:10].mean(0), errors[240:].mean(0)
    assert (last < 0.6 * first).all(), (first, last)  # at every exit


def test_the_average_is_what_is_saved(tmp_path: Path):
    small_store(tmp_path / "data")
    train(config(tmp_path))
    raw = load_file(tmp_path / "out" / "training_state.safetensors")
    average = weights(tmp_path / "out")
    learned = [name for name in average if f"policy/{name}" in raw]
    assert learned
    assert any(not torch.equal(average[n], raw[f"policy/{n}"]) for n in learned)


def test_the_average_forgets_by_its_decay_and_faster_while_it_is_young(tmp_path: Path):
    store = small_store(tmp_path / "data")
    sampler = WindowSampler(store, SMALL.action_horizon, 8, seed=0)
    with joined_processes("cpu", "fp32", compiled=False, threads=1) as accelerator:
        trainer = Trainer(
            LoopedPolicy(store.spec, SMALL), config(tmp_path, ema_decay=0.3), accelerator
        )
        expected = trainer.policy.model.action_out.weight.detach().clone()
        for step in range(6):
            trainer.train_step(sampler.batch(step))
            decay = min(0.3, (step + 2) / (step + 11))
            expected = decay * expected + (1 - decay) * trainer.policy.model.action_out.weight
    torch.testing.assert_close(trainer.average.model.action_out.weight, expected.detach())


def test_long_gradients_are_shortened_and_their_length_before_is_told(tmp_path: Path):
    store = small_store(tmp_path / "data")
    sampler = WindowSampler(store, SMALL.action_horizon, 8, seed=0)
    lengths: dict[float, tuple[float, float]] = {}
    for limit in (0.0, 0.01):
        torch.manual_seed(0)
        with joined_processes("cpu", "fp32", compiled=False, threads=1) as accelerator:
            trainer = Trainer(
                LoopedPolicy(store.spec, SMALL), config(tmp_path, clip_norm=limit), accelerator
            )
            told = float(trainer.train_step(sampler.batch(0)).gradient_norm)
        every = [p.grad.flatten() for p in trainer.policy.parameters() if p.grad is not None]
        lengths[limit] = told, float(torch.cat(every).norm())
    assert lengths[0.0][0] == lengths[0.01][0] == pytest.approx(lengths[0.0][1], rel=1e-5)
    assert lengths[0.01][1] == pytest.approx(0.01, rel=1e-3)


def test_the_learning_rate_warms_up_and_then_falls_as_a_cosine(tmp_path: Path):
    small_store(tmp_path / "data")
    log = type(config(tmp_path).log)(every=1)
    train(config(tmp_path, steps=20, warmup_steps=5, learning_rate=1.0e-3, log=log))
    rates = [row["learning_rate"] for row in rows(tmp_path / "out")]
    for step, rate in enumerate(rates):
        cosine = 0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * step / 20))
        assert rate == pytest.approx(1e-3 * min(1, (step + 1) / 5) * cosine)


def test_minutes_end_the_run_and_its_schedule(tmp_path: Path):
    small_store(tmp_path / "data")

    class Clock:
        now = 0.0

        def __call__(self) -> float:
            self.now += 10.0
            return self.now

    train(config(tmp_path, steps=10_000, minutes=1.0), clock=Clock())
    last = rows(tmp_path / "out")[-1]
    assert last["step"] < 20
    assert last["learning_rate"] < 0.3 * 1e-3
    assert all(math.isfinite(loss) for loss in last["loss"].values())


def test_a_checkpoint_is_not_overwritten_unasked(tmp_path: Path):
    small_store(tmp_path / "data")
    train(config(tmp_path, steps=2))
    with pytest.raises(CheckpointError, match="resume=true"):
        train(config(tmp_path, steps=2))
    train(config(tmp_path, steps=2, overwrite=True))


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


def test_a_checkpoint_is_not_put_into_an_episode_store(tmp_path: Path):
    small_store(tmp_path / "data")
    before = {path for path in (tmp_path / "data").rglob("*")}
    with pytest.raises(ConfigError, match="is an episode store"):
        train(config(tmp_path, out=str(tmp_path / "data")))
    assert {path for path in (tmp_path / "data").rglob("*")} == before


def test_a_disk_without_room_for_a_checkpoint_is_said_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    small_store(tmp_path / "data")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100_000))
    with pytest.raises(CheckpointError, match=r"a checkpoint needs \d+ MB .* 0 MB are free"):
        train(config(tmp_path))


def test_a_diverging_run_stops_with_its_last_checkpoint_intact(tmp_path: Path):
    small_store(tmp_path / "data")
    train(config(tmp_path, steps=2))
    before = weights(tmp_path / "out")
    with pytest.raises(
        ConfigError, match=r"Lower learning_rate.* still that of the training before"
    ):
        train(config(tmp_path, steps=60, overwrite=True, learning_rate=1e30, warmup_steps=0))
    after = weights(tmp_path / "out")
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 0}, "steps=0"),
        ({"out": ""}, "out= names no folder"),
        ({"device": "tpu"}, "Use auto, cpu or cuda"),
        ({"weight_decay": -1.0}, "weight_decay=-1.0"),
        ({"proprio_noise": math.nan}, "proprio_noise=nan"),
        ({"clip_norm": math.nan}, "clip_norm=nan"),
        ({"cache_gib": math.inf}, "cache_gib=inf"),
        ({"minutes": math.nan}, "minutes=nan"),
        ({"workers": 100_000}, "workers=100000 must be from 0 to 64"),
        ({"resume": True, "overwrite": True}, "exclude each other"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    tmp_path: Path, changes: dict[str, object], said: str
):
    with pytest.raises(ConfigError, match=said):
        config(tmp_path, **changes)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"objective": ObjectiveConfig(kind="ddpm_v", sampler="ddpm")}, "sampler=ddpm draws noise"),
        ({"topology": "dense"}, "topology=dense is for comparisons"),
        ({"objective": ObjectiveConfig(kind="ddpm_v")}, ""),
    ],
)
def test_a_policy_that_cannot_be_exported_is_told_so_before_it_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: dict[str, Any], said: str
):
    small_store(tmp_path / "data")
    train(config(tmp_path, steps=1, policy=replace(SMALL, **changed)))
    before, begun, after = capsys.readouterr().out.partition("episodes, ")
    assert begun
    assert ("next: policy-export" in after) == (not said)
    assert ("cannot be exported" in before) == bool(said)
    assert said in before
