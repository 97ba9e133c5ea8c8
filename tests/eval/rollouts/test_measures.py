import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopdit.datasets.spec import TensorSpec
from loopdit.eval.rollouts.measures import action_jerk, border_jerk, stage_shares

SPEC = TensorSpec("action", (2,), "float32", low=(-1.0, 0.0), high=(1.0, 1.0))
RAW = TensorSpec("action", (2,), "float32")


def test_constant_actions_and_straight_ramps_do_not_twitch():
    ramp = np.arange(10)[:, None] * np.array([0.1, -0.02])
    assert action_jerk(np.full((10, 2), 0.7), SPEC) == 0
    assert action_jerk(ramp, SPEC) == pytest.approx(0, abs=1e-12)


def test_flipping_between_the_limits_at_every_step_is_two():
    actions = np.where(np.arange(9)[:, None] % 2, [1.0, 1.0], [-1.0, 0.0])
    assert action_jerk(actions, SPEC) == pytest.approx(2)


def test_elements_count_by_their_declared_range_and_raw_without_one():
    actions = np.zeros((3, 2))
    actions[1] = [0.5, 0.5]  # second difference -1 in each
    assert action_jerk(actions, SPEC) == pytest.approx((1 / 2 + 1 / 1) / 2)
    assert action_jerk(actions, RAW) == pytest.approx(1)


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=20))
def test_it_is_the_root_mean_square_of_second_differences(values: list[float]):
    seconds = [values[i] - 2 * values[i - 1] + values[i - 2] for i in range(2, len(values))]
    slow = (sum(s * s for s in seconds) / len(seconds)) ** 0.5
    actions = np.array(values)[:, None].repeat(2, axis=1)
    assert action_jerk(actions, RAW) == pytest.approx(slow, abs=1e-9)


def test_two_steps_have_no_second_difference():
    assert action_jerk(np.array([[0.0, 0.0], [1.0, 1.0]]), SPEC) == 0


def test_a_rollout_counts_for_every_stage_up_to_its_furthest():
    reached = ["lifted", "grasped", "start", "grasped"]
    assert stage_shares(reached, ("grasped", "lifted")) == {"grasped": 0.75, "lifted": 0.25}
    assert stage_shares([], ("grasped",)) == {"grasped": 0.0}


def test_border_jerk_is_that_of_the_steps_at_which_chunks_take_over_alone():
    spec = TensorSpec("action", (1,), "float32", low=(-1,), high=(1,))
    ramp = np.array([0, 1, 2, 3, 7, 8, 9, 10], np.float32)[:, None] / 10  # jumps at step 4
    # 0.3 and back: the root of their mean square, as a share of the range of 2.
    assert border_jerk(ramp, spec, [4]) == pytest.approx(0.3 / 2)
    assert border_jerk(ramp, spec, [0, 2, 7]) == pytest.approx(0, abs=1e-6)
    assert border_jerk(ramp, spec, []) == 0
