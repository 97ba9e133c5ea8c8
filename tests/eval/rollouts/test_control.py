import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopdit.eval.rollouts.control import (
    combined,
    control_record,
    latency_percentiles_ms,
    never_waiting_record,
)

waits = st.lists(st.floats(0, 10), min_size=1, max_size=50)


def test_a_tick_is_missed_when_its_action_came_after_the_control_period():
    record = control_record([0.05, 0, 0.1, 0, 0.3], period_s=0.1)
    assert (record.ticks, record.missed) == (5, 1)
    assert record.on_time == pytest.approx(0.8)


def test_a_robot_that_waits_for_late_actions_ticks_at_the_lower_rate():
    record = control_record([0.3, 0, 0, 0], period_s=0.1)
    assert record.elapsed_s == pytest.approx(0.6)
    assert record.rate_hz == pytest.approx(4 / 0.6)


def test_a_robot_that_stays_put_without_an_action_ticks_on_time_and_misses_those():
    record = never_waiting_record(ticks=10, missed=4, period_s=0.1)
    assert (record.ticks, record.missed, record.on_time) == (10, 4, 0.6)
    assert record.rate_hz == pytest.approx(10)


@given(waits, st.floats(0.001, 1))
def test_rate_never_exceeds_the_asked_one_and_reaches_it_exactly_when_none_is_missed(
    waits_s: list[float], period_s: float
):
    record = control_record(waits_s, period_s)
    assert record.rate_hz <= (1 + 1e-9) / period_s
    if record.missed == 0:
        assert record.rate_hz == pytest.approx(1 / period_s)
    else:
        assert record.rate_hz < 1 / period_s


@given(waits, waits)
def test_two_rollouts_combine_to_the_record_of_all_their_ticks(a: list[float], b: list[float]):
    apart = combined([control_record(a, 0.1), control_record(b, 0.1)], 0.1)
    together = control_record(a + b, 0.1)
    assert (apart.ticks, apart.missed) == (together.ticks, together.missed)
    assert apart.elapsed_s == pytest.approx(together.elapsed_s)


def test_percentiles_are_in_milliseconds_and_interpolated():
    latencies_s = [i / 1000 for i in range(101)]
    np.random.default_rng(0).shuffle(latencies_s)
    assert latency_percentiles_ms(latencies_s) == pytest.approx({"p50": 50.0, "p99": 99.0})


def test_no_latency_has_no_percentile():
    with pytest.raises(ValueError, match="no latency"):
        latency_percentiles_ms([])
