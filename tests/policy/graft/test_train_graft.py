import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.policy.graft.graft_policies import SPEC
from tests.policy.graft.squares import episode_of
from tests.policy.graft.trainings import small_training
from tests.policy.interrupting import Interrupting

from loopdit.datasets.store import EpisodeWriter
from loopdit.errors import CheckpointError, ConfigError, SpecMismatch
from loopdit.policy.graft.checkpoint import load_graft_checkpoint
from loopdit.policy.graft.config import GraftConfig
from loopdit.policy.graft.decoders.config import DecoderConfig
from loopdit.policy.graft.train import train_graft
from loopdit.policy.objectives.depth import DepthConfig
from loopdit.policy.training.metrics import read_rows


def test_training_leaves_a_policy_its_metrics_and_a_video_model_as_it_was(
    squares: str, tmp_path: Path
):
    train_graft(small_training(squares, tmp_path))
    rows = read_rows(tmp_path)
    assert rows[-1]["step"] == 4
    assert set(rows[-1]["loss"]) == {"1", "2"}
    assert 0.5 < rows[-1]["video_loss"] < 2  # random weights say nothing: 1 is predicting zero
    found = rows[-1]["validation"]
    assert set(found["action_error"]) == {"1", "2"}
    assert found["constant_error"] > 0
    policy = load_graft_checkpoint(tmp_path).policy
    assert [p.requires_grad for p in policy.parameters() if p.requires_grad] == []
    assert policy.config.instructions == ["close it", "open it"]
    moved = [float(p.abs().max()) for p in policy.graft.loop_parameters() if p.ndim == 2]
    assert max(moved) > 0


def test_half_the_bits_and_pieces_of_a_batch_train_too(squares: str, tmp_path: Path):
    train_graft(
        small_training(squares, tmp_path, precision="bf16", accumulate=2, checkpoint="nested")
    )
    policy = load_graft_checkpoint(tmp_path).policy
    assert all(torch.isfinite(value).all() for value in policy.trained().values())
    assert {value.dtype for value in policy.trained().values()} == {torch.float32}


def test_pieces_of_a_batch_train_to_the_weights_of_the_whole(squares: str, tmp_path: Path):
    trained: list[dict[str, torch.Tensor]] = []
    for pieces in (1, 3):
        out = tmp_path / str(pieces)
        train_graft(small_training(squares, out, accumulate=pieces, steps=2))
        policy = load_graft_checkpoint(out).policy
        trained.append({name: value.detach() for name, value in policy.trained().items()})
    for name, value in trained[0].items():
        torch.testing.assert_close(trained[1][name], value, rtol=1e-3, atol=1e-5)


def test_a_resumed_training_ends_with_the_weights_and_rows_of_one_that_was_not_stopped(
    squares: str, tmp_path: Path
):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train_graft(small_training(squares, whole))
    with pytest.raises(KeyboardInterrupt):
        train_graft(small_training(squares, stopped), clock=Interrupting(6))
    step = json.loads((stopped / "checkpoint.json").read_text())["provenance"]["step"]
    assert 0 < step < 4
    train_graft(small_training(squares, stopped, resume=True))
    one, other = (load_graft_checkpoint(folder).policy.trained() for folder in (whole, stopped))
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    rows = [[row["loss"] for row in read_rows(folder)] for folder in (whole, stopped)]
    assert rows[0] == rows[1]


def test_a_training_is_resumed_with_its_own_options_alone(squares: str, tmp_path: Path):
    train_graft(small_training(squares, tmp_path, steps=1))
    with pytest.raises(CheckpointError, match=r"other options: .*noise_level=300"):
        train_graft(small_training(squares, tmp_path, noise_level=300, resume=True))
    with pytest.raises(CheckpointError, match="already holds a checkpoint"):
        train_graft(small_training(squares, tmp_path))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"checkpoint": "all"}, "checkpoint=all is unknown"),
        ({"levels": "one"}, "levels=one is unknown"),
        ({"video_weight": 0.0, "action_weight": 0.0}, "nothing to learn"),
        ({"graft": GraftConfig(halting="token")}, "checkpoint=loop does not go with"),
        ({"depth": DepthConfig(mode="curriculum")}, r"ends at K=1 .* or graft\.loops=1\."),
        ({"depth": DepthConfig(contract=0.1)}, "depth.contract=0.1 does nothing"),
        ({"decoder": DecoderConfig(kind="paper")}, "says one action"),
    ],
)
def test_options_that_cannot_work_are_refused_before_anything_is_read(
    changes: dict[str, Any], said: str
):
    with pytest.raises(ConfigError, match=said):
        small_training("nowhere.zarr", Path("out"), **changes)


@pytest.mark.system
def test_policy_train_graft_says_what_it_does_and_refuses_in_one_line(
    squares: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    from loopdit.policy.training.train import main

    given = [f"data={squares}", f"out={tmp_path / 'out'}", "video.height=33"]
    monkeypatch.setattr(sys, "argv", ["policy-train", "graft", *given])
    with pytest.raises(SystemExit):
        main()
    assert "video.height=33 must be a multiple of 16" in capfd.readouterr().err


def test_data_with_other_actions_is_refused_on_resuming(squares: str, tmp_path: Path):
    train_graft(small_training(squares, tmp_path / "out", steps=1))
    labels = ("a", "b", "c", "d", "gripper")
    action = replace(SPEC.action, shape=(5,), labels=labels, low=(-1,) * 5, high=(1,) * 5)
    writer = EpisodeWriter.create(tmp_path / "other.zarr", replace(SPEC, action=action), {})
    for number in range(10):
        frames = np.zeros((12, 32, 48, 3), np.uint8)
        actions = np.full((12, 5), number / 10, np.float32)
        writer.append(episode_of(frames, actions, "open it"))
    other = small_training(str(tmp_path / "other.zarr"), tmp_path / "out", steps=1, resume=True)
    with pytest.raises(SpecMismatch, match="action"):
        train_graft(other)
