import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.policy.policies import small_store
from tests.policy.trainings import config, rows

from loopdit.errors import ConfigError
from loopdit.policy.training.logs import LogConfig
from loopdit.policy.training.metrics import RunningMean, flat
from loopdit.policy.training.train import train

MISSING = [name for name in ("wandb", "trackio") if importlib.util.find_spec(name) is None]


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard itself reads, by tag."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    tags: Any = events.Tags()["scalars"]
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags}


def test_tensorboard_reads_the_numbers_of_metrics_jsonl(tmp_path: Path):
    small_store(tmp_path / "data", episodes=24)
    options: dict[str, Any] = {"steps": 9, "validate_every": 9}
    train(config(tmp_path, log=LogConfig(every=3, tensorboard=True), **options))
    found = scalars(tmp_path / "out" / "tensorboard")
    for row in rows(tmp_path / "out"):
        for name, value in flat(row).items():
            assert (row["step"], pytest.approx(value, rel=1e-6)) in found[name]
    assert [step for step, _ in found["loss/1"]] == [3, 6, 9]
    assert "validation/constant_error" in found


def test_a_resumed_run_goes_on_in_the_same_curve(tmp_path: Path):
    small_store(tmp_path / "data")
    log = LogConfig(every=2, tensorboard=True)
    train(config(tmp_path, steps=4, log=log))
    train(config(tmp_path, steps=8, log=log, resume=True))
    assert [step for step, _ in scalars(tmp_path / "out" / "tensorboard")["loss/1"]] == [2, 4, 6, 8]
    train(config(tmp_path, steps=2, log=log, overwrite=True))
    assert [step for step, _ in scalars(tmp_path / "out" / "tensorboard")["loss/1"]] == [2]


def test_nothing_of_a_tracker_is_imported_or_written_unasked(tmp_path: Path):
    small_store(tmp_path / "data")
    train(config(tmp_path, steps=2))
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [
        "checkpoint.json",
        "metrics.jsonl",
        "model.safetensors",
        "training_state.safetensors",
    ]
    assert "wandb" not in sys.modules


@pytest.mark.parametrize("name", MISSING)
def test_a_tracker_that_is_not_installed_is_said_before_training(tmp_path: Path, name: str):
    small_store(tmp_path / "data")
    with pytest.raises(ConfigError, match=f"package {name} is not installed"):
        train(config(tmp_path, log=LogConfig(**{name: "project"})))  # pyright: ignore[reportArgumentType] - by name
    assert not (tmp_path / "out").exists()


def test_rows_are_at_the_steps_asked_for_and_the_last(tmp_path: Path):
    small_store(tmp_path / "data")
    train(config(tmp_path, steps=7, log=LogConfig(every=3)))
    assert [row["step"] for row in rows(tmp_path / "out")] == [3, 6, 7]


def test_a_running_mean_goes_on_to_the_bit_where_it_was_saved():
    import torch

    values = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    whole, begun, resumed = RunningMean(), RunningMean(), RunningMean()
    for value in values:
        whole.add(loss=value)
    for value in values[:7]:
        begun.add(loss=value)
    resumed.load_state(begun.state(), torch.device("cpu"))
    for value in values[7:]:
        resumed.add(loss=value)
    assert resumed.take() == whole.take()
