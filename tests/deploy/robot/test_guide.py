import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.tensor_spec import TensorSpec
from loopdit.deploy.robot.guide import (
    EXP,
    GUIDE,
    LINEAR,
    ONES,
    ZEROS,
    check_with_guide,
    guide_for,
    padded,
    prefix_weights,
)
from loopdit.errors import ObservationError


# The first two are worked out in kinetix's terms: start 2, end 6, of 10.
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (LINEAR, [1, 1, 0.8, 0.6, 0.4, 0.2, 0, 0, 0, 0]),
        (EXP, [1, 1, 0.571, 0.287, 0.114, 0.026, 0, 0, 0, 0]),
        (ONES, [1, 1, 1, 1, 1, 1, 0, 0, 0, 0]),
        (ZEROS, [1, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
    ],
)
def test_weights_are_those_of_the_paper(kind: str, expected: list[float]):
    np.testing.assert_allclose(prefix_weights(10, 2, 6, kind), expected, atol=5e-4)


@given(st.integers(1, 20), st.integers(0, 25), st.integers(0, 25), st.sampled_from([LINEAR, EXP]))
def test_weights_fall_from_one_to_zero(horizon: int, start: int, end: int, kind: str):
    weights = prefix_weights(horizon, start, end, kind)
    assert (np.diff(weights) <= 1e-12).all()
    assert (weights[: min(start, end)] == 1).all()
    assert (weights[end:] == 0).all()


def test_a_kind_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="kind=soft is none of linear"):
        prefix_weights(4, 1, 3, "soft")


def test_a_short_plan_is_padded_with_what_does_not_pull():
    guide = padded(guide_for(np.full((3, 2), 7.0), delay=1), horizon=5)
    assert guide.shape == (5, 3)
    assert guide[:3, :2].tolist() == [[7, 7]] * 3
    assert not guide[3:].any()
    assert guide[0, 2] == 1
    assert padded(guide, 2).shape == (2, 3)


SPEC = PolicySpec(
    observations=(TensorSpec("proprio", (2,), "float32"),),
    action=TensorSpec("action", (2,), "float32"),
    action_frame="base",
    control_period_s=0.1,
)
PLAIN = {"proprio": np.zeros(2, np.float32)}


def test_an_observation_is_checked_as_ever_and_its_guide_beside_it():
    check_with_guide(PLAIN, SPEC)
    check_with_guide({**PLAIN, GUIDE: guide_for(np.ones((3, 2)), 1)}, SPEC)
    with pytest.raises(ObservationError, match="lacks 'proprio'"):
        check_with_guide({GUIDE: np.ones((3, 3), np.float32)}, SPEC)


@pytest.mark.parametrize(
    "guide",
    [
        np.ones((3, 2), np.float32),
        np.ones(3, np.float32),
        np.ones((3, 3)),
        np.full((3, 3), 1.5, np.float32),
        np.full((3, 3), np.nan, np.float32),
        np.array([[np.inf, 0, 1]], np.float32),
    ],
)
def test_a_guide_that_is_none_is_refused_with_its_form(guide: np.ndarray):
    with pytest.raises(ObservationError, match=r"send \(n, 3\) float32"):
        check_with_guide({**PLAIN, GUIDE: guide}, SPEC)
