"""Every guard by what a robot would miss, at 50 Hz, of an arm whose actions shift its hand."""

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.tensor_spec import TensorSpec
from loopdit.deploy.robot.safety.config import POSE, SafetyConfig, limits_for
from loopdit.deploy.robot.safety.safety_filter import (
    EMERGENCY_STOP,
    WATCHDOG,
    SafetyFilter,
    commanded_position,
)
from loopdit.errors import ConfigError

PERIOD_S = 0.02
ARM = TensorSpec(
    "action", (4,), "float32", ("dx", "dy", "dz", "gripper"),
    low=(-0.01, -0.01, -0.01, 0.0), high=(0.01, 0.01, 0.01, 1.0),
)  # fmt: skip
JOINTS = TensorSpec("action", (2,), "float32", ("shoulder", "elbow"), low=(-2, -2), high=(2, 2))
BOX = {"workspace_low": [0.1, -0.2, 0.0], "workspace_high": [0.4, 0.2, 0.3]}
ANY = st.floats(-1e3, 1e3) | st.sampled_from([np.nan, np.inf, -np.inf])


def arm(**options: object) -> SafetyFilter:
    return SafetyFilter(limits_for(SafetyConfig(**options), ARM, PERIOD_S))  # pyright: ignore[reportArgumentType] - by name


def joints(**options: object) -> SafetyFilter:
    return SafetyFilter(limits_for(SafetyConfig(**options), JOINTS, PERIOD_S))  # pyright: ignore[reportArgumentType] - by name


def shift(*xyz: float, gripper: float = 1.0) -> np.ndarray:
    return np.array([*xyz, gripper], np.float32)


def through(safety: SafetyFilter, actions: np.ndarray) -> np.ndarray:
    """What is executed of actions (n, A): (n or fewer, A)."""
    found = [safety.step(action, fresh=True).action for action in actions]
    return np.array([a for a in found if a is not None]).reshape(-1, actions.shape[1])


def one(safety: SafetyFilter, action: np.ndarray) -> np.ndarray:
    """What is executed of one action."""
    (done,) = through(safety, np.array([action]))
    return done


def test_an_action_within_all_limits_passes_to_the_bit():
    safety = arm(acceleration=[100.0] * 4, gripper_debounce_s=0.1, **BOX)
    safety.measured(np.array([0.2, 0.0, 0.1]))
    action = shift(0.0031, -0.0077, 0.001)
    done = safety.step(action, fresh=True)
    np.testing.assert_array_equal(done.action, action)
    assert (done.changed_by, done.stopped_by, dict(safety.acted)) == ((), "", {})


@given(arrays(np.float64, st.tuples(st.integers(1, 30), st.just(4)), elements=ANY))
def test_whatever_a_policy_says_what_is_executed_is_finite_in_range_slow_and_in_the_box(
    actions: np.ndarray,
):
    safety = arm(velocity=[0.3, 0.3, 0.2, 5.0], **BOX)
    position = np.array([0.2, 0.0, 0.1])
    safety.measured(position)
    executed = through(safety, actions)
    path = position + np.cumsum(executed[:, :3], axis=0)
    assert np.isfinite(executed).all()
    assert (np.abs(executed[:, :3]) <= np.array([0.006, 0.006, 0.004]) + 1e-7).all()
    assert ((executed[:, 3] >= 0) & (executed[:, 3] <= 1)).all()
    assert (np.abs(np.diff(executed[:, 3])) <= 0.1 + 1e-6).all()
    assert (path >= np.array(BOX["workspace_low"]) - 1e-5).all()
    assert (path <= np.array(BOX["workspace_high"]) + 1e-5).all()


@given(arrays(np.float64, st.tuples(st.integers(2, 40), st.just(2)), elements=st.floats(-9, 9)))
def test_joints_change_no_faster_than_their_velocity_and_acceleration(targets: np.ndarray):
    safety = joints(velocity=[1.0, 2.0], acceleration=[20.0, 50.0])
    executed = through(safety, targets).astype(float)
    velocity = np.diff(executed, axis=0, prepend=executed[:1]) / PERIOD_S
    assert (np.abs(velocity) <= np.array([1.0, 2.0]) + 1e-4).all()
    change = np.diff(velocity, axis=0, prepend=np.zeros((1, 2))) / PERIOD_S
    assert (np.abs(change) <= np.array([20.0, 50.0]) + 2e-2).all()


def test_a_joint_that_is_told_to_jump_gets_there_by_steps():
    safety = joints(velocity=[1.0, 1.0])
    executed = through(safety, np.array([[0.0, 0.0]] + [[0.1, 0.0]] * 7))
    np.testing.assert_allclose(
        executed[:, 0], [0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.1, 0.1], atol=1e-6
    )
    assert safety.acted["rate"] == 4


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_action_that_is_no_number_is_replaced_by_holding_and_said(
    bad: float, caplog: pytest.LogCaptureFixture
):
    safety = arm()
    safety.step(shift(0.001, 0.002, 0.003, gripper=0.25), fresh=True)
    with caplog.at_level(logging.WARNING):
        done = [safety.step(shift(0.001, bad, 0.0), fresh=True) for _ in range(3)]
    np.testing.assert_array_equal(done[2].action, shift(0, 0, 0, gripper=0.25))
    assert done[2].changed_by == ("finite",)
    assert safety.acted["finite"] == 3
    assert [record.getMessage() for record in caplog.records] == ["safety: finite acts"]


def test_before_a_first_good_action_there_is_none():
    safety = joints()
    assert safety.step(None, fresh=False).action is None
    assert safety.step(np.array([np.nan, 0.0]), fresh=True).action is None
    assert safety.step(np.array([0.5, 0.5]), fresh=True).action is not None
    np.testing.assert_array_equal(safety.step(None, fresh=False).action, [0.5, 0.5])


def test_a_box_is_kept_from_where_the_command_was_measured_and_moves_with_it():
    safety = arm(**BOX)
    safety.measured(np.array([0.395, 0.0, 0.1]))
    moves = through(safety, np.array([shift(0.01, 0.01, 0)] * 2))
    np.testing.assert_allclose(moves, [shift(0.005, 0.01, 0), shift(0, 0.01, 0)], atol=1e-7)
    assert safety.acted["workspace"] == 2
    safety.measured(np.array([0.35, 0.0, 0.1]))  # it was pushed back
    np.testing.assert_allclose(one(safety, shift(0.01, 0, 0)), shift(0.01, 0, 0), atol=1e-7)


def test_a_command_outside_the_box_may_come_back_and_go_no_further():
    safety = arm(**BOX)
    safety.measured(np.array([0.45, 0.0, 0.1]))
    np.testing.assert_allclose(one(safety, shift(0.01, 0, 0)), shift(0, 0, 0), atol=1e-7)
    np.testing.assert_allclose(one(safety, shift(-0.01, 0, 0)), shift(-0.01, 0, 0), atol=1e-7)


def test_nothing_moves_in_a_box_until_the_position_was_measured():
    done = arm(**BOX).step(shift(0.01, 0, 0), fresh=True)
    np.testing.assert_array_equal(done.action, shift(0, 0, 0))


def test_a_gripper_that_flickers_keeps_its_hold_and_one_that_means_it_opens():
    safety = arm(gripper_debounce_s=0.06)  # three steps
    told = [0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    executed = through(safety, np.array([shift(0, 0, 0, gripper=g) for g in told]))
    assert executed[:, 3].tolist() == [0] * 10 + [1, 1]
    assert safety.acted["gripper"] == 6


def test_a_watchdog_stops_after_its_periods_and_stays_stopped_until_a_reset(
    caplog: pytest.LogCaptureFixture,
):
    safety = arm(watchdog_periods=3)
    moving = shift(0.005, 0, 0, gripper=0.5)
    assert [safety.step(None, fresh=False).stopped_by for _ in range(9)] == [""] * 9  # not begun
    safety.step(moving, fresh=True)
    assert [safety.step(None, False).stopped_by for _ in range(3)] == ["", "", WATCHDOG]
    held = safety.step(moving, fresh=True)
    assert held.stopped_by == WATCHDOG
    np.testing.assert_array_equal(held.action, shift(0, 0, 0, gripper=0.5))
    assert safety.acted[WATCHDOG] == 1
    assert "safety: watchdog acts" in caplog.text
    safety.reset()
    assert safety.step(moving, fresh=True).stopped_by == ""


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 8))
def test_a_watchdog_stops_exactly_where_so_many_stale_steps_follow_a_fresh_one(
    fresh: list[bool], periods: int
):
    safety = arm(watchdog_periods=periods)
    text = ""
    for each in fresh:
        text += "F" if each else "."
        stopped = safety.step(shift(0, 0, 0) if each else None, each).stopped_by == WATCHDOG
        assert stopped == ("F" + "." * periods in text)


def test_an_emergency_stop_holds_at_once_whatever_the_acceleration_and_says_who_pressed_it(
    caplog: pytest.LogCaptureFixture,
):
    safety = arm(acceleration=[1.0, 1.0, 1.0, 1e9])
    moved = through(safety, np.array([shift(0.01, 0, 0)] * 20))
    assert moved[-1, 0] > 0.005
    safety.press("the red button")
    stopped = safety.step(shift(0.01, 0, 0), fresh=True)
    assert stopped.stopped_by == EMERGENCY_STOP
    np.testing.assert_array_equal(stopped.action, shift(0, 0, 0))
    assert "emergency_stop acts: the red button" in caplog.text
    assert safety.acted[EMERGENCY_STOP] == 1
    safety.reset()
    again = safety.step(shift(0.01, 0, 0), fresh=True).action
    assert again is not None
    assert 0 < again[0] < 0.001  # from rest


def test_a_stop_pose_is_gone_to_within_the_limits_and_reached():
    safety = arm(on_stop=POSE, stop_pose=[0.2, 0.0, 0.25, 1.0], **BOX)
    position = np.array([0.3, 0.05, 0.1])
    safety.measured(position)
    safety.step(shift(0, 0, 0), fresh=True)
    safety.press("test")
    for _ in range(20):
        done = safety.step(None, fresh=False).action
        assert done is not None
        assert np.abs(done[:3]).max() <= 0.01 + 1e-7
        position = position + done[:3]
    np.testing.assert_allclose(position, [0.2, 0.0, 0.25], atol=1e-5)


def test_joints_go_to_their_stop_pose_by_steps():
    safety = joints(on_stop=POSE, stop_pose=[1.0, -1.0], velocity=[5.0, 5.0])
    safety.step(np.zeros(2), fresh=True)
    safety.press("test")
    executed = through(safety, np.zeros((12, 2)))
    np.testing.assert_allclose(executed[[0, 9, 11], 0], [0.1, 1.0, 1.0], atol=1e-6)


def test_the_commanded_position_is_the_measured_one_and_how_far_the_command_is_ahead():
    labels = ("x", "y", "z", "opening", "x_command_ahead")
    proprio = TensorSpec("proprio", (5,), "float32", labels)
    spec = PolicySpec((proprio,), ARM, "base", 0.02)
    felt = np.array([0.1, 0.2, 0.3, 1.0, 0.05], np.float32)
    found = commanded_position({"proprio": felt}, spec)
    assert found is not None
    np.testing.assert_allclose(found, [0.15, 0.2, 0.3], atol=1e-6)
    blind = PolicySpec((TensorSpec("proprio", (1,), "float32", ("elbow",)),), ARM, "base", 0.02)
    assert commanded_position({"proprio": np.zeros(1)}, blind) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"velocity": [1.0]}, r"safety.velocity has 1 numbers, and an action has 4"),
        ({"velocity": [1.0, 1, 1, 0]}, r"safety.velocity=.* must be above 0"),
        ({"low": [1.0] * 4}, r"safety.low is above safety.high at element 0"),
        ({"workspace_low": [0.0] * 3}, r"Give both"),
        ({"workspace_low": [0.0] * 3, "workspace_high": [0.0] * 3}, r"each below the other's"),
        ({"on_stop": "fly"}, r"safety.on_stop=fly is unknown. Use hold or pose"),
        ({"on_stop": POSE}, r"a pose is given with on_stop=pose"),
        ({"on_stop": POSE, "stop_pose": [0.0] * 4}, r"needs workspace_low"),
        ({"watchdog_periods": 0}, r"must be at least 1"),
        ({"gripper_debounce_s": -1.0}, r"must be from 0 to 60"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        arm(**options)


def test_a_box_for_joints_is_refused():
    with pytest.raises(ConfigError, match="needs an action with dx dy dz; this one has shoulder"):
        joints(**BOX)
