import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopdit.policy.loops.sharpening import sharpness


def test_sharpness_rises_evenly_from_the_first_loop_to_the_last():
    assert [sharpness(loop, 4, 4.0) for loop in range(4)] == [1.0, 2.0, 3.0, 4.0]


@given(sharpest=st.floats(1, 100), broadest=st.floats(0.1, 1))
def test_a_single_loop_is_as_broad_as_a_first_one(sharpest: float, broadest: float):
    assert sharpness(0, 1, sharpest, broadest) == sharpness(0, 5, sharpest, broadest) == broadest


@given(loops=st.integers(1, 64), data=st.data())
def test_a_range_of_one_is_exactly_one_in_every_loop(loops: int, data: st.DataObject):
    assert sharpness(data.draw(st.integers(0, loops - 1)), loops, 1.0) == 1.0


@given(loops=st.integers(2, 64), sharpest=st.floats(1, 100))
def test_the_last_loop_is_the_sharpest(loops: int, sharpest: float):
    assert sharpness(loops - 1, loops, sharpest) == pytest.approx(sharpest)
