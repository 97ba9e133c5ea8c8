import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopdit.errors import ConfigError
from loopdit.eval.rollouts.delays import Delay, in_steps, parse_delay

PERIOD_S = 0.1


def draws(delay: Delay, count: int = 2000, seed: int = 7) -> list[int]:
    return [delay.steps(seed, chunk, 0.0, PERIOD_S) for chunk in range(count)]


def test_a_number_is_that_many_control_steps_always():
    assert set(draws(parse_delay("3"), 10)) == {3}
    assert (parse_delay("0").clock, parse_delay("3").clock) == ("paused", "virtual")


def test_uniform_takes_each_number_of_steps_about_as_often():
    counts = Counter(draws(parse_delay("uniform:1-3")))
    assert sorted(counts) == [1, 2, 3]
    # 667 expected with a standard deviation of 21: five of them fail once in 10^6 runs.
    assert all(abs(count - 2000 / 3) < 110 for count in counts.values())


def test_normal_rounds_milliseconds_up_to_control_steps():
    counts = Counter(draws(parse_delay("normal:200:50")))
    # Of 2000, 46 are expected below 100 ms (1 step), and half of the rest up to 200 ms (2 steps).
    assert counts[2] == pytest.approx(954, abs=115)
    assert counts[3] == pytest.approx(954, abs=115)
    assert set(draws(parse_delay("normal:120:0"), 5)) == {2}


def test_recorded_draws_among_what_was_measured(tmp_path: Path):
    path = tmp_path / "seconds.json"
    path.write_text(json.dumps([0.05, 0.05, 0.05, 0.31]))
    counts = Counter(draws(parse_delay(f"recorded:{path}")))
    assert sorted(counts) == [1, 4]
    assert counts[4] == pytest.approx(500, abs=97)  # five standard deviations


def test_wall_is_what_this_chunk_took():
    delay = parse_delay("wall")
    assert delay.clock == "wall"
    assert [delay.steps(0, 0, latency, PERIOD_S) for latency in (0.0, 0.02, 0.1, 0.11)] == [
        0,
        1,
        1,
        2,
    ]


@pytest.mark.parametrize("text", ["uniform:0-9", "normal:300:200"])
def test_draws_depend_on_seed_and_chunk_alone(text: str):
    one, other = parse_delay(text), parse_delay(text)
    in_order = [one.steps(5, chunk, 0.0, PERIOD_S) for chunk in range(20)]
    # Another latency on this machine, another order, other episodes between.
    backwards = [
        (other.steps(6, chunk, 9.9, PERIOD_S), other.steps(5, chunk, 9.9, PERIOD_S))[1]
        for chunk in reversed(range(20))
    ]
    assert in_order == backwards[::-1]
    assert in_order != [one.steps(6, chunk, 0.0, PERIOD_S) for chunk in range(20)]


@given(st.integers(0, 1000), st.floats(0.001, 1.0))
def test_whole_periods_are_that_many_steps_and_a_little_more_is_one_more(
    count: int, period_s: float
):
    assert in_steps(count * period_s, period_s) == count
    assert in_steps(count * period_s + 0.01 * period_s, period_s) == count + 1


def test_a_slower_control_rate_meets_fewer_steps_of_the_same_latency():
    delay = parse_delay("normal:200:0")
    assert [delay.steps(0, 0, 0.0, p) for p in (0.05, 0.1, 0.2, np.inf)] == [4, 2, 1, 0]


@pytest.mark.parametrize(
    "text",
    ["", "-1", "1.5", "uniform", "uniform:3-1", "normal:10", "normal:-1:2", "slow", "wall:1"],
)
def test_an_unknown_delay_is_refused_with_the_forms_there_are(text: str):
    with pytest.raises(ConfigError, match=r"is unknown. Use one of: 0, 1, 2, .*uniform:1-3.*wall"):
        parse_delay(text)
