"""scripts/calibrate_depth.py, run as a script is."""

import runpy
from pathlib import Path

import pytest
import torch
from tests.policy.policies import SMALL, small_store

import loopdit
from loopdit.deploy.bundle.bundle import default_bundle
from loopdit.policy.checkpoint import save_checkpoint
from loopdit.policy.looped_policy import LoopedPolicy

SCRIPT = Path(loopdit.__file__).parents[2] / "scripts" / "calibrate_depth.py"


def calibrated(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", [str(SCRIPT), *arguments])
    threads = torch.get_num_threads()
    try:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    finally:
        torch.set_num_threads(threads)


def test_a_bundle_is_refused_with_what_to_calibrate(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(SystemExit, match=r"is a bundle.*Calibrate the checkpoint that it was"):
        calibrated(monkeypatch, str(default_bundle()), "no-store", "--mean-loops", "2.5")
    assert not (Path(default_bundle()) / "adaptive_depth.json").exists()


def test_a_checkpoint_gets_a_threshold(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    store = small_store(tmp_path / "data")
    config = SMALL.__class__(width=32, max_loops=3, action_horizon=4, actions_per_token=2)
    save_checkpoint(tmp_path / "out", LoopedPolicy(store.spec, config), {})
    places = (str(tmp_path / "out"), str(tmp_path / "data"))
    calibrated(monkeypatch, *places, "--mean-loops", "2.5", "--observations", "50")
    assert "on average of 50 observations" in capsys.readouterr().out
    assert (tmp_path / "out" / "adaptive_depth.json").exists()
