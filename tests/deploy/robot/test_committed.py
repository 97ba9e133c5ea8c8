import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopdit.datasets.spec import FROM_COMMITTED, FROM_OBSERVATION, PolicySpec, TensorSpec
from loopdit.deploy.robot.committed import from_observation, packed, unpacked, with_committed

SPEC = PolicySpec(
    observations=(TensorSpec("proprio", (1,), "float32"),),
    action=TensorSpec("action", (2,), "float32"),
    action_frame="two numbers",
    control_period_s=0.1,
)
SEEN = {"proprio": np.zeros(1, np.float32)}


def actions(count: int) -> np.ndarray:
    return np.arange(2 * count, dtype=np.float32).reshape(count, 2) - 3


@given(count=st.integers(0, 5), room=st.integers(0, 3))
def test_the_actions_in_flight_come_back_from_the_tensor_that_tells_of_them(count: int, room: int):
    told = packed(actions(count), count + room, 2)
    assert (told.shape, told.dtype) == ((count + room, 3), np.float32)
    assert told[:, -1].tolist() == [1] * count + [0] * room
    assert not told[count:].any()
    np.testing.assert_array_equal(unpacked(told), actions(count))


def test_a_policy_is_given_an_observation_as_its_spec_declares_it():
    told = with_committed(SEEN, actions(2), SPEC.with_committed(4))
    SPEC.with_committed(4).check_observation(told)
    assert told["committed"].tolist() == [[-3, -2, 1], [-1, 0, 1], [0, 0, 0], [0, 0, 0]]
    nothing = with_committed(SEEN, np.empty((0, 0)), SPEC.with_committed(4))
    assert not nothing["committed"].any()
    assert with_committed(SEEN, actions(2), SPEC) is SEEN
    with pytest.raises(ValueError, match="3 actions are in flight, and at most 2 can be told"):
        with_committed(SEEN, actions(3), SPEC.with_committed(2))


def test_a_chunk_that_begins_behind_what_is_committed_has_that_put_in_front():
    chunk = 10 + actions(3)
    assert from_observation(chunk, actions(2), FROM_OBSERVATION) is chunk
    behind = from_observation(chunk, actions(2), FROM_COMMITTED)
    np.testing.assert_array_equal(behind, [*actions(2), *chunk])
    assert from_observation(chunk, np.empty((0, 0)), FROM_COMMITTED) is chunk
