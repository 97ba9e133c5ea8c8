"""A policy that is given its last two observations, from demonstrations to closed-loop rollouts."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loopdit.deploy.backends import load_backend
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.deploy.serving.served_bundle import ServedBundle
from loopdit.deploy.serving.server import PolicyServer
from loopdit.eval.runs.journal import read_journal


def run(folder: Path, name: str, *options: str) -> str:
    done = subprocess.run(
        [Path(sys.executable).with_name(name), *options],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Demonstrations, a checkpoint and a bundle; with all that changes an exported graph."""
    made = tmp_path_factory.mktemp("history")
    run(
        made,
        "policy-collect",
        "env=reach",
        "episodes=3",
        "image_size=16",
        "out=data.zarr",
        "workers=1",
    )
    run(
        made,
        "policy-train",
        *("data=data.zarr", "out=checkpoint", "steps=2", "batch_size=4"),
        *("policy.history=2", "policy.width=32", "policy.max_loops=1"),
        *("normalize.action=quantile", "normalize.proprio=quantile", "normalize.keep=[gripper]"),
        *("augment.shift=0.1", "augment.hue=0.1", "augment.history_dropout=0.5"),
    )
    options = ("checkpoint=checkpoint", "data=data.zarr", "out=bundle", "repetitions=0")
    run(made, "policy-export", *options)  # which compares with torch, on recorded observations
    return made


def rollouts(folder: Path, policy: str, out: str) -> list[Any]:
    options = (f"policy={policy}", "env=reach", "loops=[1]", "episodes=2", "controls=false")
    run(folder, "policy-eval", *options, "execute_horizon=[3]", f"out={out}")
    results = json.loads((folder / out / "eval.json").read_text())["results"]
    assert [row["episodes"] for row in results] == [2]
    records = read_journal(folder / out).runs[-1].rollouts
    return [record["state_sha256"] for record in records]


def test_a_bundle_tells_the_history_it_wants_and_both_back_ends_agree(folder: Path):
    bundle = Bundle.open(folder / "bundle")
    assert bundle.spec.history == 2
    assert [t.shape for t in bundle.spec.cameras] == [(2, 16, 16, 3)] * 2
    rng = np.random.default_rng(0)
    observation = {
        t.name: rng.integers(0, 256, t.shape, np.uint8)
        if t.is_image
        else rng.normal(size=t.shape).astype(np.float32)
        for t in bundle.spec.observations
    }
    chunks = [
        ServedBundle(bundle, load_backend(bundle, name)).infer(
            observation, seed=0, loops=1, steps=3
        )
        for name in ("onnxruntime", "torch")
    ]
    np.testing.assert_allclose(chunks[0].actions, chunks[1].actions, atol=1e-5)
    backwards = {name: value[::-1] for name, value in observation.items()}
    other = ServedBundle(bundle, load_backend(bundle)).infer(backwards, seed=0, loops=1, steps=3)
    assert np.abs(other.actions - chunks[0].actions).max() > 1e-4


def test_rollouts_are_the_same_in_this_process_and_behind_a_server(folder: Path):
    bundle = Bundle.open(folder / "bundle")
    with PolicyServer(ServedBundle(bundle, load_backend(bundle)), "tcp://127.0.0.1:0") as server:
        served = rollouts(folder, server.endpoint, "served")
    assert served == rollouts(folder, "bundle", "in-process")
    assert len(set(served)) == 2
    rollouts(folder, "checkpoint", "checkpoint-itself")
