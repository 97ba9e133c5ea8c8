import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopdit.datasets.action_filters import ActionsConfig, action_filter, binarise, smooth
from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.statistics import compute_statistics
from loopdit.datasets.store import EpisodeStore
from loopdit.datasets.windows import WindowSampler
from loopdit.errors import ConfigError


def filtered(spec: PolicySpec, actions: np.ndarray, **options: Any) -> np.ndarray:
    chosen = action_filter(spec, ActionsConfig(**options))
    assert chosen is not None
    return chosen(actions)


def published_rule(actions: list[float]) -> list[float]:
    """The loop in the docstring of Octo's and Bridge's binarize_gripper_actions."""
    new, carry = list(actions), actions[-1]
    for i in reversed(range(len(actions))):
        if actions[i] > 0.95 or actions[i] < 0.05:
            carry = float(actions[i] > 0.95)
        new[i] = carry
    return new


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=30))
def test_a_binarised_gripper_is_what_the_published_rule_makes_of_it(values: list[float]):
    found = binarise(np.array(values, np.float32), 0.0, 1.0)
    assert found.tolist() == published_rule(values)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_a_gripper_that_was_binarised_stays_as_it_is(values: list[float]):
    once = binarise(np.array([*values, 1.0]), 0.0, 1.0)
    assert set(once) <= {0.0, 1.0}
    assert binarise(once, 0.0, 1.0).tolist() == once.tolist()


def test_a_gripper_with_other_limits_is_binarised_to_them(spec: PolicySpec):
    spec = replace(spec, action=replace(spec.action, low=(-1, -1, -1), high=(1, 1, 1)))
    actions = np.zeros((4, 3), np.float32)
    actions[:, 2] = [-1.0, -0.2, 0.3, 0.97]
    assert filtered(spec, actions, binarise=["grip"])[:, 2].tolist() == [-1, 1, 1, 1]


def test_a_gripper_in_unknown_units_is_refused_with_its_range(spec: PolicySpec):
    spec = replace(spec, action=replace(spec.action, low=(), high=()))
    with pytest.raises(ConfigError, match=r"grip goes from -1 to 0 .* spec gives no limits"):
        filtered(spec, np.array([[0, 0, -1], [0, 0, 0]], np.float32), binarise=["grip"])


def test_smoothing_is_a_gaussian_mean_without_delay():
    values = np.random.default_rng(0).normal(size=(40, 2))
    offsets = np.arange(-6, 7)
    weights = np.exp(-0.5 * (offsets / 2) ** 2)
    weights /= weights.sum()
    found = smooth(values, 2.0)
    for step in range(6, 34):
        expected = (weights[:, None] * values[step + offsets]).sum(0)
        np.testing.assert_allclose(found[step], expected, rtol=1e-12)
    np.testing.assert_allclose(smooth(values[::-1], 2.0), found[::-1], rtol=1e-9, atol=1e-12)


@given(st.integers(1, 12), st.floats(0.1, 20), st.floats(-2, 2), st.floats(-2, 2))
def test_smoothing_keeps_a_straight_line_however_short(
    length: int, spread: float, start: float, slope: float
):
    line = (start + slope * np.arange(length))[:, None]
    np.testing.assert_allclose(smooth(line, spread), line, atol=1e-9)


def test_smoothing_leaves_the_gripper_alone_and_stays_within_limits(spec: PolicySpec):
    spec = replace(spec, action=replace(spec.action, labels=("x", "y", "left_gripper")))
    actions = np.random.default_rng(0).choice([-1.0, 1.0], (20, 3)).astype(np.float32)
    found = filtered(spec, actions, smooth_s=0.3)
    assert found.dtype == np.float32
    assert found[:, 2].tolist() == actions[:, 2].tolist()
    assert np.abs(np.diff(found[:, 0])).sum() < 0.5 * np.abs(np.diff(actions[:, 0])).sum()
    assert np.abs(found).max() <= 1


def test_nothing_is_done_to_actions_unless_it_is_asked_for(spec: PolicySpec):
    assert action_filter(spec, ActionsConfig()) is None


def test_a_filter_makes_a_new_array_and_can_be_sent_to_another_process(spec: PolicySpec):
    chosen = action_filter(spec, ActionsConfig(smooth_s=0.2, binarise=["grip"]))
    assert chosen is not None
    actions = np.random.default_rng(0).random((9, 3)).astype(np.float32)
    before = actions.copy()
    there = pickle.loads(pickle.dumps(chosen))
    np.testing.assert_array_equal(there(actions), chosen(actions))
    np.testing.assert_array_equal(actions, before)


def test_a_label_that_no_action_has_is_refused_with_those_there_are(spec: PolicySpec):
    with pytest.raises(ConfigError, match=r"'claw', and no action is called so.* x, y, grip\."):
        action_filter(spec, ActionsConfig(binarise=["claw"]))


def test_smoothing_actions_without_labels_is_refused(spec: PolicySpec):
    unnamed = replace(spec, action=replace(spec.action, labels=()))
    with pytest.raises(ConfigError, match="no labels to tell which one"):
        action_filter(unnamed, ActionsConfig(smooth_s=0.1))


def test_windows_and_statistics_are_of_the_filtered_actions(store: Path, spec: PolicySpec):
    """Each episode by itself: the store's actions, filtered here, episode by episode."""
    opened = EpisodeStore.open(store)
    chosen = action_filter(spec, ActionsConfig(smooth_s=0.2, binarise=["grip"]))
    assert chosen is not None
    expected = np.concatenate(
        [chosen(opened.arrays(i)["action"]) for i in opened.canonical_order()]
    )
    for ram_bytes in (1 << 20, 0):  # in memory, and in a file
        sampler = WindowSampler(opened, 1, len(expected), 0, actions=chosen, ram_bytes=ram_bytes)
        found = sampler.batch(0).actions[:, 0]  # one epoch, in another order
        np.testing.assert_array_equal(found[np.lexsort(found.T)], expected[np.lexsort(expected.T)])
    mean = compute_statistics(opened, actions=chosen)["action"].mean
    np.testing.assert_allclose(mean, expected.mean(0, dtype=np.float64), rtol=1e-6)
