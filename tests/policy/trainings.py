"""What the tests of training share: settings of seconds, whole commands, what a run left."""

import json
import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tests.policy.policies import SMALL

from loopdit.policy.training.config import TrainConfig

SETTINGS: dict[str, Any] = {"batch_size": 8, "warmup_steps": 2, "threads": 1}


def config(tmp_path: Path, **changes: Any) -> TrainConfig:
    """A training of the store tmp_path/data into tmp_path/out."""
    settings: dict[str, Any] = {
        **SETTINGS,
        "data": str(tmp_path / "data"),
        "out": str(tmp_path / "out"),
        "steps": 12,
        "policy": SMALL,
    }
    return TrainConfig(**{**settings, **changes})


def command(tmp_path: Path, *changes: str, launcher: tuple[str, ...] = ()) -> list[str]:
    """The same as a whole command; `launcher` runs the module in place of this Python."""
    policy = [f"policy.{name}={getattr(SMALL, name)}" for name in ("width", "max_loops")]
    policy += [f"policy.{name}={getattr(SMALL, name)}" for name in _CHUNK]
    settings = [f"{name}={value}" for name, value in SETTINGS.items()]
    places = [f"data={tmp_path / 'data'}", f"out={tmp_path / 'out'}"]
    module = ["-m", "loopdit.policy.training.train"]
    return [*(launcher or (sys.executable,)), *module, *settings, *places, *policy, *changes]


_CHUNK = ("action_horizon", "actions_per_token")


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """A command to its end, whatever that is."""
    return subprocess.run(arguments, capture_output=True, text=True, env=environment(), check=False)


@contextmanager
def begun(arguments: list[str]) -> Generator[subprocess.Popen[str]]:
    """A command that has begun to train, or has nothing to do; its output from there on."""
    with subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if line.startswith("train ") or "nothing to do" in line:
                break
        else:
            raise AssertionError(said)
        yield process


def environment() -> dict[str, str]:
    """One thread, and output as it comes."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def rows(out: Path) -> list[dict[str, Any]]:
    """metrics.jsonl."""
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def curve(out: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what the clock decides."""
    timed = ("elapsed_s", "samples_per_s")
    return [{k: v for k, v in row.items() if k not in timed} for row in rows(out)]


def weights(out: Path) -> dict[str, torch.Tensor]:
    """What would be served."""
    return load_file(out / "model.safetensors")


def require_equal_weights(one: Path, other: Path) -> None:
    """To the bit."""
    left, right = weights(one), weights(other)
    assert left.keys() == right.keys()
    different = [name for name in left if not torch.equal(left[name], right[name])]
    assert not different
