import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.transform import Rotation

from loopdit.datasets.tensor_spec import TensorSpec
from loopdit.deploy.robot.commanded_pose import (
    Shifts,
    divided,
    divided_limits,
    merged,
    rotation_matrix,
    rotation_vector,
)

LABELS = ("dx", "dy", "dz", "drx", "dry", "drz", "gripper")
SHIFTS = Shifts(LABELS)
ACTIONS = arrays(
    np.float64, st.tuples(st.integers(1, 8), st.just(7)), elements=st.floats(-0.3, 0.3)
)
VECTORS = arrays(np.float64, 3, elements=st.floats(-1.8, 1.8))


@given(VECTORS)
def test_rotations_are_those_of_scipy_both_ways(vector: np.ndarray):
    matrix = rotation_matrix(vector)
    np.testing.assert_allclose(matrix, Rotation.from_rotvec(vector).as_matrix(), atol=1e-12)
    again = rotation_vector(matrix)
    np.testing.assert_allclose(again, Rotation.from_matrix(matrix).as_rotvec(), atol=1e-7)


@pytest.mark.parametrize("axis", np.eye(3))
def test_a_turn_by_nearly_half_a_circle_keeps_its_axis_and_none_stays_none(axis: np.ndarray):
    turn = (np.pi - 1e-4) * axis
    np.testing.assert_allclose(rotation_vector(rotation_matrix(turn)), turn, atol=1e-9)
    assert not rotation_vector(np.eye(3)).any()


@given(ACTIONS)
def test_actions_to_poses_and_back_are_the_same_actions(actions: np.ndarray):
    start = SHIFTS.poses(SHIFTS.start(), np.array([[0.1, 0.2, 0.3, 1.0, -0.5, 0.2, 1.0]]))[0]
    poses = SHIFTS.poses(start, actions)
    np.testing.assert_allclose(SHIFTS.actions(start, poses), actions, atol=1e-6)


@given(ACTIONS)
def test_a_pose_is_the_sum_of_translations_and_the_product_of_turns(actions: np.ndarray):
    last = SHIFTS.poses(SHIFTS.start(), actions)[-1]
    turned = Rotation.identity()
    for action in actions:
        turned = Rotation.from_rotvec(action[3:6]) * turned
    np.testing.assert_allclose(last[:3], actions[:, :3].sum(axis=0), atol=1e-12)
    np.testing.assert_allclose(last[7:].reshape(3, 3), turned.as_matrix(), atol=1e-9)
    assert last[6] == actions[-1, 6]


@given(ACTIONS, st.integers(1, 6))
def test_divided_actions_lead_through_the_same_poses_and_merge_to_the_same_actions(
    actions: np.ndarray, parts: int
):
    many = divided(actions, parts, SHIFTS)
    fine, coarse = (SHIFTS.poses(SHIFTS.start(), each) for each in (many, actions))
    np.testing.assert_allclose(fine[parts - 1 :: parts], coarse, atol=1e-9)
    np.testing.assert_allclose(merged(many, parts, SHIFTS), actions, atol=1e-12)


def test_divided_limits_are_tighter_for_shifts_alone():
    spec = TensorSpec("action", (2,), "float32", ("dx", "gripper"), low=(-0.03, 0), high=(0.03, 1))
    fine = divided_limits(spec, 3)
    assert (fine.low, fine.high) == ((-0.01, 0), (0.01, 1))
    assert divided_limits(spec, 1) is spec


def test_labels_say_what_is_a_shift_and_half_a_rotation_is_none():
    assert Shifts(LABELS).elements == [0, 1, 2, 3, 4, 5]
    assert Shifts(("gripper", "dz", "drz")).elements == [1]
    assert not Shifts(("shoulder", "elbow"))
