"""A number that is not finite stops a training, and is traced to where it began."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.policy.policies import SMALL, small_store
from tests.policy.trainings import config

from loopdit.datasets.windows import Batch, WindowSampler
from loopdit.errors import ConfigError, StoreError
from loopdit.policy.checkpoint import load_training_state
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.policy.training.loop import TrainingLoop
from loopdit.policy.training.processes import joined_processes
from loopdit.policy.training.steps import NotFinite
from loopdit.policy.training.train import train
from loopdit.policy.training.trainer import Trainer


@pytest.fixture
def trainer(tmp_path: Path) -> Iterator[Trainer]:
    store = small_store(tmp_path / "data")
    torch.manual_seed(0)
    settings = config(tmp_path, save_every_s=0.0)
    with joined_processes("cpu", "fp32", compiled=False, threads=1) as accelerator:
        yield Trainer(LoopedPolicy(store.spec, SMALL), settings, accelerator)


@pytest.fixture
def sampler(trainer: Trainer) -> WindowSampler:
    store = small_store(Path(trainer.config.out).parent / "again")
    return WindowSampler(store, SMALL.action_horizon, 8, seed=0)


def spoilt(batch: Batch, name: str, row: int) -> Batch:
    if name == "action":
        batch.actions[row, 1] = np.inf
        return batch
    values = batch.observations[name].copy()
    values[row] = np.nan
    return replace(batch, observations={**batch.observations, name: values})


@pytest.mark.parametrize("name", ["proprio", "action"])
def test_spoilt_data_is_named_by_window_and_changes_no_weight(
    trainer: Trainer, sampler: WindowSampler, name: str
):
    trainer.train_step(sampler.batch(0))
    before = {key: value.clone() for key, value in trainer.state().tensors.items()}
    with pytest.raises(NotFinite) as found:
        trainer.train_step(spoilt(sampler.batch(1), name, row=5))
    assert (found.value.tensor, found.value.rows) == (name, [5])
    assert all(torch.equal(before[key], value) for key, value in trainer.state().tensors.items())
    assert trainer.step == 1


def test_a_spoilt_gradient_is_named_by_its_parameter(trainer: Trainer, sampler: WindowSampler):
    parameter = trainer.policy.model.proprio.bias
    parameter.register_hook(lambda gradient: gradient * np.nan)
    with pytest.raises(NotFinite, match=r"^the gradient of model\.proprio\.bias$"):
        trainer.train_step(sampler.batch(0))


def test_a_spoilt_loss_is_named_by_its_exits(trainer: Trainer, sampler: WindowSampler):
    with torch.no_grad():
        trainer.policy.model.loop_embedding[1] = 1e38  # finite, and not after a matrix product
    with pytest.raises(NotFinite, match=r"^the loss of K=") as found:
        trainer.train_step(sampler.batch(0))
    assert "2" in found.value.tensor


def test_the_error_says_step_batch_episode_and_tensor_and_the_checkpoint_stays(
    trainer: Trainer, sampler: WindowSampler
):
    out = Path(trainer.config.out)

    def batches() -> Iterator[Batch]:
        yield from (sampler.batch(step) for step in range(3))
        yield spoilt(sampler.batch(3), "proprio", row=2)

    loop = TrainingLoop(trainer, sampler, out, {}, clock=lambda: 0.0)
    episode, step = sampler.places(3)[2]
    with pytest.raises(StoreError) as error:
        loop.run(batches())
    said = str(error.value)
    assert f"step 4 stopped: proprio is not finite in window 2 of batch 3, {episode}" in said
    assert f"its step {step}" in said
    assert load_training_state(out)[0].numbers["step"] == 3


def test_weights_that_the_last_step_spoilt_are_never_saved(tmp_path: Path):
    """A step may go to infinity and leave a finite loss behind it: that of the weights before."""
    small_store(tmp_path / "data")
    with pytest.raises(ConfigError, match=r"stopped: the .* is not finite.*Lower learning_rate"):
        train(config(tmp_path, steps=60, save_every_s=0.0, learning_rate=1e38, warmup_steps=0))
    if (tmp_path / "out" / "checkpoint.json").exists():
        state, average = load_training_state(tmp_path / "out")
        for name, tensor in (*state.tensors.items(), *average.items()):
            if not name.startswith("normalizer"):
                assert torch.isfinite(tensor).all(), name
