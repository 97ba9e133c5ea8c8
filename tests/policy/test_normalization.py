import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loopdit.datasets.spec import PROPRIO, PolicySpec, TensorSpec
from loopdit.datasets.statistics import VectorStatistics
from loopdit.errors import ConfigError
from loopdit.policy.checkpoint import load_policy, save_checkpoint
from loopdit.policy.looped_dit_config import LoopedDiTConfig
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.policy.normalizer import MODES
from loopdit.policy.training.normalization import NormalizeConfig, fit_normalizer

SPEC = PolicySpec(
    observations=(
        TensorSpec("images.front", (16, 16, 3), "uint8"),
        TensorSpec(PROPRIO, (2,), "float32", labels=("x", "gripper")),
    ),
    action=TensorSpec("action", (3,), "float32", labels=("dx", "dy", "gripper")),
    action_frame="delta; gripper 1 open",
    control_period_s=0.2,
)
CONFIG = LoopedDiTConfig(width=32, max_loops=1, action_horizon=4, actions_per_token=2)
ACTIONS = np.random.default_rng(0).normal([0.0, 0.02, 0.5], [0.01, 0.02, 0.4], (1000, 3))
STATES = np.random.default_rng(1).normal([0.3, 0.5], [0.1, 0.4], (1000, 2))


def statistics(values: np.ndarray) -> VectorStatistics:
    low, q01, q99, high = np.quantile(values, [0, 0.01, 0.99, 1], axis=0)
    rows = (values.mean(0), values.std(0), low, high, q01, q99)
    return VectorStatistics(*(tuple(row.tolist()) for row in rows))


def fitted(**options: Any) -> LoopedPolicy:
    torch.manual_seed(0)
    policy = LoopedPolicy(SPEC, CONFIG)
    found = {"action": statistics(ACTIONS), PROPRIO: statistics(STATES)}
    fit_normalizer(policy, found, NormalizeConfig(**options))
    return policy


def normalised(policy: LoopedPolicy, actions: np.ndarray = ACTIONS) -> np.ndarray:
    return policy.normalizer.chunk(torch.tensor(actions[None], dtype=torch.float32))[0].numpy()


def test_mean_and_spread_are_what_a_policy_has_unless_told_otherwise():
    found = normalised(fitted())
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(found.std(0), 1, rtol=1e-4)


def test_quantiles_follow_bridges_rule_and_leave_the_gripper_alone():
    found = normalised(fitted(action="quantile", keep=["gripper"]))
    q01, q99 = np.quantile(ACTIONS, [0.01, 0.99], axis=0)
    expected = np.clip(2 * (ACTIONS - q01) / (q99 - q01) - 1, -1, 1)
    np.testing.assert_allclose(found[:, :2], expected[:, :2], atol=1e-5)
    np.testing.assert_allclose(found[:, 2], ACTIONS[:, 2], rtol=1e-6)
    assert np.abs(found[:, 2]).max() > 1  # kept, so not clipped either


def test_quantiles_clip_proprio_too():
    policy = fitted(proprio="quantile")
    far = torch.tensor([[100.0, -100.0]])
    assert policy.normalizer.proprio(far).tolist() == [[1.0, -1.0]]


def test_extremes_map_to_one_and_are_not_clipped_beyond():
    policy = fitted(action="min_max")
    found = normalised(policy)
    np.testing.assert_allclose(found.min(0), -1, atol=1e-5)
    np.testing.assert_allclose(found.max(0), 1, atol=1e-5)
    assert np.abs(normalised(policy, 2 * ACTIONS)).max() > 1.5


def test_none_leaves_raw_units():
    np.testing.assert_array_equal(normalised(fitted(action="none")), ACTIONS.astype(np.float32))


@given(
    mode=st.sampled_from(MODES),
    share=st.lists(st.floats(0.02, 0.98), min_size=3, max_size=3),
    kept=st.booleans(),
)
def test_every_mode_comes_back_to_raw_units(mode: str, share: list[float], kept: bool):
    policy = fitted(action=mode, keep=["gripper"] if kept else [])
    raw = np.quantile(ACTIONS, share, axis=0).astype(np.float32)
    chunk = torch.tensor(raw[None])
    back = policy.normalizer.raw_chunk(policy.normalizer.chunk(chunk))
    torch.testing.assert_close(back, chunk, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"action": "quantile", "keep": ["gripper"]}])
def test_a_checkpoint_brings_its_normalisation_along(options: dict[str, Any], tmp_path: Path):
    policy = fitted(**options)
    save_checkpoint(tmp_path, policy, {})
    loaded = load_policy(tmp_path)
    np.testing.assert_array_equal(normalised(loaded, 9 * ACTIONS), normalised(policy, 9 * ACTIONS))
    assert list(loaded.state_dict()) == list(policy.state_dict())


def test_only_a_policy_that_clips_has_more_weights_than_before_there_was_clipping():
    plain, clipping = fitted().state_dict(), fitted(action="quantile").state_dict()
    assert set(clipping) - set(plain) == {"normalizer.action_bound"}
    other = fitted(proprio="quantile")
    other.load_state_dict(plain)  # weights decide, whatever was there
    assert list(other.state_dict()) == list(plain)


def test_a_copy_of_a_policy_clips_as_well():
    policy = fitted(action="quantile")
    twin = copy.deepcopy(policy)
    np.testing.assert_array_equal(normalised(twin, 9 * ACTIONS), normalised(policy, 9 * ACTIONS))


def test_a_label_that_nothing_has_is_refused_with_those_there_are():
    with pytest.raises(ConfigError, match=r"'grip', which .*: dx, dy, gripper, x, gripper\."):
        fitted(keep=["grip"])


def test_an_unknown_mode_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"normalize.proprio=minmax .* mean_std, min_max"):
        NormalizeConfig(proprio="minmax")
