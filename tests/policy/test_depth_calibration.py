"""Thresholds, against counting by hand."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.policy.policies import small_spec

from loopdit.errors import CheckpointError, ConfigError
from loopdit.policy.adaptive_depth import act_adaptively
from loopdit.policy.depth_calibration import (
    ADAPTIVE_DEPTH,
    Calibration,
    calibrate,
    load_calibration,
    loops_taken,
    save_calibration,
    threshold_at,
    threshold_for,
)
from loopdit.policy.looped_dit_config import LoopedDiTConfig
from loopdit.policy.looped_policy import LoopedPolicy

CHANGES = torch.tensor([[0.5, 0.1, 0.0], [0.4, 0.3, 0.2], [0.1, 0.6, 0.05]])
FOUND = Calibration("chunk", 0.1, 2.5, (0.0, 0.5, 0.5), 2, "mean_loops=2.5", "aa")


def test_the_first_loop_whose_change_is_below_the_threshold_is_the_last():
    assert loops_taken(CHANGES, 0.0, 4).tolist() == [4, 4, 4]
    assert loops_taken(CHANGES, 0.2, 4).tolist() == [3, 4, 2]
    assert loops_taken(CHANGES, 0.1, 4).tolist() == [4, 4, 4]  # below, not at
    assert loops_taken(CHANGES, 1.0, 4).tolist() == [2, 2, 2]


@given(
    seed=st.integers(0, 1000),
    observations=st.integers(1, 40),
    loops=st.integers(2, 6),
    wanted=st.floats(0, 1),
)
def test_no_smaller_threshold_takes_as_few_loops_as_were_wanted(
    seed: int, observations: int, loops: int, wanted: float
):
    changes = torch.rand(observations, loops - 1, generator=torch.Generator().manual_seed(seed))
    mean = 2 + wanted * (loops - 2)
    threshold = threshold_for(changes, mean, loops)

    def taken(limit: float) -> float:
        return float(loops_taken(changes, limit, loops).double().mean())

    assert taken(threshold) <= mean
    smaller = [0.0, *(value for value in changes.flatten().tolist() if value < threshold)]
    assert threshold == 0 or all(taken(value) > mean for value in smaller)


def test_a_quantile_is_of_the_last_loops_changes():
    assert threshold_at(CHANGES, 0.5) == pytest.approx(0.05)
    with pytest.raises(ConfigError, match=r"quantile=1\.5"):
        threshold_at(CHANGES, 1.5)


def test_a_mean_that_no_threshold_has_is_refused():
    for mean in (1.9, 4.1):
        with pytest.raises(ConfigError, match=f"mean_loops={mean} is not from 2 to 4"):
            threshold_for(CHANGES, mean, 4)


def test_a_calibrated_policy_takes_the_loops_that_were_counted():
    torch.manual_seed(0)
    config = LoopedDiTConfig(width=32, max_loops=4, action_horizon=4, actions_per_token=2)
    policy = LoopedPolicy(small_spec(cameras=0), config).eval().requires_grad_(False)
    for parameter in policy.model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    batches = [{"proprio": torch.randn(8, 3)} for _ in range(3)]
    found = calibrate(policy, batches, "digest", mean_loops=3.0)
    assert 2 < found.mean_loops <= 3.0
    assert found.observations == 24
    noise = torch.zeros(8, 4, 2)  # the temperature of serving is 0
    loops = torch.cat([act_adaptively(policy, b, noise, found.rule).loops for b in batches])
    assert float(loops.double().mean()) == pytest.approx(found.mean_loops)
    assert [float((loops == k).double().mean()) for k in (1, 2, 3, 4)] == list(found.shares)
    with pytest.raises(ConfigError, match="give one of them"):
        calibrate(policy, batches, "digest")


def test_a_calibration_is_read_back_and_belongs_to_its_weights(tmp_path: Path):
    assert load_calibration(tmp_path, "aa") is None
    save_calibration(tmp_path, FOUND)
    assert load_calibration(tmp_path, "aa") == FOUND
    with pytest.raises(CheckpointError, match="other weights"):
        load_calibration(tmp_path, "bb")


def test_a_damaged_calibration_is_named(tmp_path: Path):
    path = tmp_path / ADAPTIVE_DEPTH
    save_calibration(tmp_path, FOUND)
    said = json.loads(path.read_text())
    for damaged in (
        "{",
        "[]",
        json.dumps({**said, "format_version": 2}),
        json.dumps({"format": 1}),
    ):
        path.write_text(damaged)
        with pytest.raises(CheckpointError, match=ADAPTIVE_DEPTH):
            load_calibration(tmp_path, "aa")
