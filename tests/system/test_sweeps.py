"""`policy-train -m` on each of Hydra's launchers: real commands, real processes."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.policy.policies import small_store

from loopdit.policy.checkpoint import load_checkpoint

WIDTHS, SEEDS = (32, 64), (0, 1)


def sweep(data: Path, out: Path, *options: str) -> dict[str, dict[str, torch.Tensor]]:
    """Weights of the four trainings, by "width-seed"."""
    program = str(Path(sys.executable).with_name("policy-train"))
    command = [program, "-m", *options, f"data={data}", f"policy.width={_listed(WIDTHS)}"]
    command += [f"seed={_listed(SEEDS)}", "steps=3", "batch_size=4", "threads=1", "device=cpu"]
    command += [f"out={out}/${{policy.width}}-${{seed}}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, dict[str, torch.Tensor]] = {}
    for name in (f"{width}-{seed}" for width in WIDTHS for seed in SEEDS):
        policy = load_checkpoint(out / name).policy
        assert policy.config.width == int(name.partition("-")[0])
        found[name] = dict(policy.state_dict())
    return found


def _listed(values: tuple[int, ...]) -> str:
    return ",".join(map(str, values))


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "options",
    [
        ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
        pytest.param(("hydra/launcher=ray",), marks=pytest.mark.slow),
        pytest.param(("hydra/launcher=submitit_local",), marks=pytest.mark.slow),
    ],
    ids=["joblib", "ray", "submitit"],
)
def test_four_jobs_of_a_sweep_train_what_they_train_one_after_the_other(
    tmp_path: Path, options: tuple[str, ...]
):
    small_store(tmp_path / "data")
    alone = sweep(tmp_path / "data", tmp_path / "alone")
    beside = sweep(tmp_path / "data", tmp_path / "beside", *options)
    for name in alone:
        assert same(alone[name], beside[name]), name
    assert not same(alone["32-0"], alone["32-1"])
