"""policy-info, against what it describes."""

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.policy.policies import SMALL, small_spec, small_store

from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.store import EpisodeStore
from loopdit.deploy.bundle.bundle import Bundle, default_bundle
from loopdit.deploy.info.command import main
from loopdit.policy.checkpoint import save_checkpoint
from loopdit.policy.depth_calibration import Calibration, save_calibration
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.policy.objectives.objective import ObjectiveConfig

Told = tuple[str, str]
Call = Callable[..., Told]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """call("shipped", "json=true") -> what it printed, and its error."""

    def run(*arguments: object) -> Told:
        monkeypatch.setattr(sys, "argv", ["policy-info", *map(str, arguments)])
        with suppress(SystemExit):
            main()
        captured = capsys.readouterr()
        return captured.out, captured.err

    return run


def described(call: Call, *arguments: object) -> dict[str, Any]:
    said, error = call(*arguments, "json=true")
    assert error == ""
    found: dict[str, Any] = json.loads(said)
    return found


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    folder = tmp_path / "checkpoint"
    provenance = {"step": 30, "config": {"steps": 40, "seed": 5}, "data_digest": "abc"}
    save_checkpoint(folder, LoopedPolicy(small_spec(), SMALL), provenance)
    return folder


def test_a_preset_is_counted_by_part(call: Call):
    found = described(call, "preset=v1_3b4l")
    assert (found["kind"], found["name"]) == ("preset", "v1_3b4l")
    assert found["parameters"] == found["trainable"] == 1_491_409
    assert sum(part["parameters"] for part in found["parts"].values()) == found["parameters"]
    said = " ".join(call("preset=v1_3b4l")[0].split())
    assert "parameters 1,491,409 by part" in said
    assert f"stack {found['parts']['stack']['parameters']:,}" in said


def test_a_bundle_is_told_with_what_its_export_measured(call: Call):
    bundle = Bundle.open(default_bundle())
    found = described(call, default_bundle())
    assert (found["kind"], found["model_id"]) == ("bundle", bundle.model_id)
    assert (found["loops"], found["default_loops"]) == ([*bundle.loops], bundle.default_loops)
    assert found["bytes"] == bundle.bytes == sum(found["files"].values())
    assert PolicySpec.from_dict(found["spec"]) == bundle.spec
    assert found["parity"] == bundle.manifest.parity
    assert found["latency"] == [*bundle.manifest.latency]
    assert found["provenance"] == bundle.provenance
    assert described(call, "shipped") == found
    said = " ".join(call("shipped")[0].split())
    first = bundle.manifest.latency[0]["rows"][0]
    assert f"K={first['loops']}: p50 {first['p50_ms']:.1f} ms" in said
    assert f"{found['parameters']:,}" in said
    assert bundle.provenance["data_digest"] in said


def test_a_checkpoint_is_told_with_how_it_was_trained(call: Call, checkpoint: Path):
    found = described(call, checkpoint)
    assert (found["kind"], found["loops"], found["horizon"]) == ("checkpoint", [1, 2], 4)
    assert PolicySpec.from_dict(found["spec"]) == small_spec()
    model = LoopedPolicy(small_spec(), SMALL).model
    assert found["parameters"] == sum(p.numel() for p in model.parameters())
    assert found["trainable"] == found["parameters"]
    assert found["provenance"]["step"] == 30
    assert found["adaptive"] is None
    assert not found["resumable"]
    assert found["bytes"] == (checkpoint / "model.safetensors").stat().st_size
    said = " ".join(call(checkpoint)[0].split())
    assert "step 30 of 40, seed 5" in said
    assert "digest abc" in said


def test_the_threshold_of_adaptive_depth_is_told(call: Call, checkpoint: Path):
    listed = json.loads((checkpoint / "checkpoint.json").read_text())["files"]
    digest = listed["model.safetensors"]["sha256"]
    kept = Calibration("chunk", 0.25, 1.5, (0.5, 0.5), 10, "mean_loops=1.5", digest)
    save_calibration(checkpoint, kept)
    assert described(call, checkpoint)["adaptive"]["threshold"] == 0.25
    assert "chunk:0.25 takes 1.50 loops" in call(checkpoint)[0]


def test_a_threshold_of_other_weights_is_said_and_the_checkpoint_told_all_the_same(
    call: Call, checkpoint: Path
):
    kept = Calibration("chunk", 0.25, 1.5, (0.5, 0.5), 10, "mean_loops=1.5", "f" * 64)
    save_calibration(checkpoint, kept)
    assert "other weights" in described(call, checkpoint)["adaptive"]["error"]
    said = " ".join(call(checkpoint)[0].split())
    assert "Calibrate again" in said
    assert "step 30 of 40" in said


def test_a_store_is_told_as_policy_data_does(call: Call, tmp_path: Path):
    small_store(tmp_path / "store", episodes=3)
    found = described(call, tmp_path / "store")
    assert (found["kind"], found["episodes"]) == ("store", 3)
    assert found["digest"] == EpisodeStore.open(tmp_path / "store").digest()
    assert "3 (3 successful)" in call(tmp_path / "store")[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere does not exist. Looked for a folder with manifest.json (a bundle)"),
        (["{tmp}"], "it has no manifest.json (a bundle), checkpoint.json (a checkpoint) or zarr"),
        (["{tmp}/file"], "is a file"),
        (["v1_3b4l"], "a model system by name is preset=NAME"),
        (["preset=v9"], "preset=v9 is unknown. The presets are: ship, v1_3b4l"),
        ([], "target= and preset= are both empty"),
        (["shipped", "preset=ship"], "target= and preset= are shipped and ship"),
        (["shipped", "more"], "'more' is not written name=value"),
    ],
)
def test_what_is_none_of_them_is_refused_in_one_line(
    call: Call, tmp_path: Path, arguments: list[str], said: str
):
    (tmp_path / "file").touch()
    out, error = call(*(word.format(tmp=tmp_path) for word in arguments))
    assert (out, error.count("\n")) == ("", 1)
    assert error.startswith("policy-info: error: ")
    assert said in error


def test_a_damaged_checkpoint_is_refused(call: Call, checkpoint: Path):
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "model.safetensors is damaged" in call(checkpoint)[1]


@pytest.mark.parametrize(
    "objective",
    [ObjectiveConfig(gripper="bce", gripper_labels=["shut"]), ObjectiveConfig("ddpm_v")],
)
def test_a_checkpoint_of_any_objective_is_told(
    call: Call, tmp_path: Path, objective: ObjectiveConfig
):
    """Its parameters are counted on the meta device, where nothing has a value."""
    spec = small_spec()
    spec = replace(spec, action=replace(spec.action, labels=("reach", "shut")))
    save_checkpoint(tmp_path / "made", LoopedPolicy(spec, replace(SMALL, objective=objective)), {})
    assert described(call, tmp_path / "made")["policy"]["objective"] == asdict(objective)
