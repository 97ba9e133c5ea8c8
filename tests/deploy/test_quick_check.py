"""The quick check never lets through what the spec refuses, and passes what is plainly right."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.deploy.echo_policy import SPEC, observation

from loopdit.deploy.quick_check import QuickCheck
from loopdit.errors import ObservationError

values: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(list(observation(1).values())),
    st.sampled_from([np.full(3, x, np.float32) for x in (np.nan, np.inf, -np.inf, 3e38, 0)]),
    st.sampled_from([np.zeros(3), np.zeros((4, 6, 3)), np.zeros(4, np.float32), 3, [0.0] * 3]),
)


@given(st.dictionaries(st.sampled_from(["images.front", "proprio", "other"]), values))
def test_what_passes_is_what_the_spec_takes(seen: dict[str, Any]):
    if QuickCheck(SPEC).passes(seen):
        SPEC.check_observation(seen)


def test_an_observation_as_declared_passes():
    assert QuickCheck(SPEC).passes(observation(1))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("index", [0, 2])
def test_numbers_that_are_not_finite_do_not_pass(value: float, index: int):
    seen = observation(1)
    seen["proprio"][index] = value
    assert not QuickCheck(SPEC).passes(seen)
    with pytest.raises(ObservationError):
        SPEC.check_observation(seen)


def test_what_needs_a_closer_look_is_left_to_the_spec():
    told = SPEC.with_committed(2)
    committed = {"committed": np.zeros((2, 4), np.float32)}
    assert not QuickCheck(told).passes(observation(1) | committed)
    told.check_observation(observation(1) | committed)
    blind = replace(SPEC.with_optional_cameras())
    assert QuickCheck(blind).passes(observation(1))
