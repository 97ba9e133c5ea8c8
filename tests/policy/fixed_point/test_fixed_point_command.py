"""`python -m loopdit.policy.fixed_point` on small real checkpoints and stores."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.policy.policies import SMALL, small_spec, small_store

from loopdit.errors import ConfigError, SpecMismatch
from loopdit.policy.checkpoint import save_checkpoint
from loopdit.policy.fixed_point.__main__ import FixedPointConfig, run, table
from loopdit.policy.fixed_point.adapters import random_policy
from loopdit.policy.fixed_point.diagnostics import Curve, FixedPointReport, LoopCurves
from loopdit.policy.fixed_point.observations import recorded, synthetic
from loopdit.policy.fixed_point.picture import draw
from loopdit.policy.looped_dit_config import LoopedDiTConfig
from loopdit.policy.looped_policy import LoopedPolicy

PNG = b"\x89PNG\r\n\x1a\n"


def checkpoint(folder: Path, config: LoopedDiTConfig = SMALL) -> LoopedPolicy:
    torch.manual_seed(0)
    policy = LoopedPolicy(small_spec(), config)
    save_checkpoint(folder, policy, {"made": "for a test"})
    return policy


def config(tmp_path: Path, **changes: Any) -> FixedPointConfig:
    settings: dict[str, Any] = {
        "checkpoint": str(tmp_path / "checkpoint"),
        "out": str(tmp_path / "out"),
        "samples": 4,
        "loops": 3,
        "null_seeds": 2,
        "iterations": 5,
    }
    return FixedPointConfig(**{**settings, **changes})


@pytest.mark.parametrize("data", [False, True])
def test_it_writes_a_report_and_a_picture(tmp_path: Path, data: bool):
    checkpoint(tmp_path / "checkpoint")
    small_store(tmp_path / "data")
    report = run(config(tmp_path, data=str(tmp_path / "data") if data else ""))
    written = json.loads((tmp_path / "out" / "fixed_point.json").read_text())
    assert written["trained_loops"] == SMALL.max_loops
    assert written["null_seeds"] == [0, 1]
    assert tuple(written["model"]["cosine"]["median"]) == report.model.cosine.median
    assert len(report.model.cosine.median) == 3
    assert written["machine"]["cores"] >= 1
    for way in ("plain", "anderson"):
        solved = written["solved"][way]
        assert solved["samples"] == 4
        assert 0 <= solved["converged"] <= 4
        assert solved["median_steps"] <= 100
    assert (tmp_path / "out" / "fixed_point.png").read_bytes().startswith(PNG)


def test_a_policy_before_training_is_its_own_null(tmp_path: Path):
    """The checkpoint holds the weights of seed 0: the first null must be it."""
    policy = checkpoint(tmp_path / "checkpoint")
    again = random_policy(policy, 0).state_dict()
    assert all(torch.equal(again[name], value) for name, value in policy.state_dict().items())
    report = run(config(tmp_path))
    assert report.null[0] == report.model
    assert report.null[1] != report.model


def test_recorded_observations_are_the_stores_own(tmp_path: Path):
    policy = checkpoint(tmp_path / "checkpoint")
    store = small_store(tmp_path / "data")
    seen = recorded(policy, str(tmp_path / "data"), samples=5, seed=0)
    stored = [store.arrays(index)["proprio"][:] for index in range(len(store.episodes))]
    rows = {tuple(row) for episode in stored for row in episode.tolist()}
    assert {tuple(row) for row in seen["proprio"].tolist()} <= rows
    assert seen["images.camera0"].shape == (5, 16, 16, 3)


def test_data_of_another_robot_is_refused(tmp_path: Path):
    checkpoint(tmp_path / "checkpoint")
    small_store(tmp_path / "data", small_spec(proprio=5))
    with pytest.raises(SpecMismatch, match="proprio"):
        run(config(tmp_path, data=str(tmp_path / "data")))


@pytest.mark.parametrize("instruction", ["words", "task"])
def test_a_policy_with_everything_has_observations_of_both_kinds(tmp_path: Path, instruction: str):
    changes: dict[str, Any] = {
        "history": 2,
        "optional_cameras": True,
        "instruction": instruction,
        "instructions": ["do it", "lift the cube"],
        "in_flight": 2,
    }
    spec = small_spec(cameras=2)
    named = replace(spec.proprio, labels=("reach", "grip", "turn"))
    spec = replace(
        spec,
        observations=(*spec.cameras, named),
        action=replace(spec.action, labels=("reach", "grip")),
    )
    for told in ("prefix", "rolled"):
        policy = LoopedPolicy(spec, replace(SMALL, told=told, **changes))
        policy.eval()
        made = synthetic(policy, 3, seed=0)
        context = policy.encode(made, loops=2)
        assert context.keys.isfinite().all()
        seen = recorded(policy, str(small_store(tmp_path / told, spec).path), 3, seed=0)
        assert seen["committed"].shape == (3, 2, 3)
        assert seen.keys() | {"available"} == made.keys() | {"committed"}
        assert all(made[n].shape == v.shape for n, v in seen.items() if n in made)


def test_the_table_has_a_line_for_each_loop_with_the_middle_null_beside_it():
    def curves(level: float) -> LoopCurves:
        whole, later = (Curve((level,) * n, (level,) * n, (level,) * n) for n in (3, 2))
        return LoopCurves(whole, whole, whole, later, whole)

    nulls = tuple(curves(level) for level in (0.9, 0.7, 0.8))
    report = FixedPointReport(4, 2, curves(0.5), (0, 1, 2), nulls)
    _, *lines = table(report).splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2", "3"]
    assert [line.count("0.500 (0.800)") for line in lines] == [4, 5, 5]
    assert [line.endswith("beyond training") for line in lines] == [False, False, True]


def test_a_picture_takes_its_format_from_its_name(tmp_path: Path):
    flat = Curve((0.5, 0.5), (0.4, 0.4), (0.6, 0.6))
    curves = LoopCurves(flat, flat, flat, Curve((0.5,), (0.4,), (0.6,)), flat)
    draw(FixedPointReport(4, 2, curves, (), ()), tmp_path / "picture.svg", "without a null")
    text = (tmp_path / "picture.svg").read_text()
    assert text.startswith("<?xml")
    assert [path.name for path in tmp_path.iterdir()] == ["picture.svg"]


@pytest.mark.parametrize("name", ["samples", "iterations", "threads"])
def test_impossible_settings_are_refused_by_name(tmp_path: Path, name: str):
    with pytest.raises(ConfigError, match=f"{name}=0"):
        config(tmp_path, **{name: 0})


@pytest.mark.system
def test_it_runs_as_a_module_and_refuses_in_one_line(tmp_path: Path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    module = [sys.executable, "-m", "loopdit.policy.fixed_point"]
    said = subprocess.run(
        [*module, f"checkpoint={tmp_path}/none", f"out={tmp_path}/out"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert said.returncode == 1
    assert len(said.stderr.splitlines()) == 1
    assert "none" in said.stderr
