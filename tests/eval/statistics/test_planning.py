"""Computed powers against simulated ones and published numbers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from loopdit.eval.statistics.paired import mcnemar_p_value
from loopdit.eval.statistics.planning import (
    Pairs,
    correlation_limits,
    detectable_difference,
    episodes_needed,
    expected_episodes,
    found_by_e_process,
    found_by_mcnemar,
    pairs_of,
    power_of,
    unpaired_episodes,
)
from loopdit.eval.statistics.sequential import log_two_sided

RUNS = 4000
# A share of 4,000 runs is further than this from its probability less than once in 10^6.
BOUND = 5 * 0.5 / math.sqrt(RUNS)
rates = st.floats(0.02, 0.98)


def simulated(pairs: Pairs, episodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Discordant pairs so far (runs, episodes), of A alone and of B alone."""
    drawn = np.random.default_rng(7).random((RUNS, episodes))
    only_a = drawn < pairs.only_a
    only_b = ~only_a & (drawn < pairs.discordant)
    return np.cumsum(only_a, axis=1), np.cumsum(only_b, axis=1)


@given(rates, rates, st.floats(0, 1))
def test_pairs_have_the_rates_and_the_correlation_they_are_asked_for(
    rate_a: float, rate_b: float, share: float
):
    low, high = correlation_limits(rate_a, rate_b)
    rho = low + share * (high - low)
    pairs = pairs_of(rate_a, rate_b, rho)
    assert pairs.only_b - pairs.only_a == pytest.approx(rate_b - rate_a, abs=1e-9)
    assert min(pairs.only_a, pairs.only_b) >= 0
    covariance = (rate_a - pairs.only_a) - rate_a * rate_b
    spread = math.sqrt(rate_a * (1 - rate_a) * rate_b * (1 - rate_b))
    assert covariance / spread == pytest.approx(rho, abs=1e-7)


def test_at_the_limit_the_worse_one_never_wins_alone():
    pairs = pairs_of(0.6, 0.8, rho=1.0)
    assert (pairs.only_a, pairs.only_b) == pytest.approx((0, 0.2))


@pytest.mark.parametrize(("rate_b", "rho"), [(0.8, 0.0), (0.7, 0.5)])
def test_power_of_mcnemar_is_how_often_simulated_runs_find_it(rate_b: float, rho: float):
    pairs, episodes = pairs_of(0.5, rate_b, rho), 60
    only_a, only_b = (int_counts[:, -1] for int_counts in simulated(pairs, episodes))
    found = [
        b > a and mcnemar_p_value(int(a), int(b)) <= 0.05
        for a, b in zip(only_a, only_b, strict=True)
    ]
    power = power_of(episodes, pairs, found_by_mcnemar(episodes, pairs.share_b, 0.05))
    assert 0.3 < power < 0.99
    assert np.mean(found) == pytest.approx(power, abs=BOUND)


def test_power_and_stop_of_the_e_process_are_those_of_simulated_runs():
    pairs, limit = pairs_of(0.5, 0.7), 120
    only_a, only_b = simulated(pairs, limit)
    crossed = (log_two_sided(only_a, only_b) >= math.log(20)) & (only_b > only_a)
    shown = np.maximum.accumulate(crossed, axis=1)
    found = found_by_e_process(limit, pairs.share_b, 0.05)
    for episodes in (30, 70, 120):
        power = power_of(episodes, pairs, found)
        assert shown[:, episodes - 1].mean() == pytest.approx(power, abs=BOUND)
    stops = limit - shown[:, :-1].sum(axis=1)  # the episode of the stop, or the limit
    tolerance = 5 * stops.std() / math.sqrt(RUNS)
    assert stops.mean() == pytest.approx(expected_episodes(pairs, found, limit), abs=tolerance)


def test_both_tests_find_what_is_not_there_in_at_most_5_of_100_runs():
    pairs = pairs_of(0.7, 0.7)
    for found_by in (found_by_mcnemar, found_by_e_process):
        one_way = power_of(400, pairs, found_by(400, 0.5, 0.05))
        assert 0.005 < one_way <= 0.025


def test_the_episodes_needed_are_enough_and_fewer_are_not():
    pairs = pairs_of(0.7, 0.8)
    for found_by in (found_by_mcnemar, found_by_e_process):
        found = found_by(1000, pairs.share_b, 0.05)
        needed = episodes_needed(pairs, found, 0.8)
        assert needed is not None
        assert power_of(needed, pairs, found) >= 0.8 > power_of(needed - 5, pairs, found)
        assert episodes_needed(pairs, found[: needed - 5], 0.8) is None


def test_mcnemar_needs_about_what_the_normal_approximation_says():
    # Connor 1987, with psi discordant and delta apart: n = (z_alpha/2 sqrt(psi) + z_power
    # sqrt(psi - delta^2))^2 / delta^2. The exact test is a few percent more careful.
    for rate_b, rho in ((0.8, 0.0), (0.8, 0.5), (0.75, 0.3)):
        pairs = pairs_of(0.7, rate_b, rho)
        apart = pairs.only_b - pairs.only_a
        z = norm.ppf(0.975) * math.sqrt(pairs.discordant)
        z += norm.ppf(0.8) * math.sqrt(pairs.discordant - apart**2)
        approximate = (z / apart) ** 2
        needed = episodes_needed(pairs, found_by_mcnemar(3000, pairs.share_b, 0.05), 0.8)
        assert needed is not None
        assert approximate < needed < 1.1 * approximate + 6


@pytest.mark.parametrize(
    ("rate_a", "rate_b", "power", "needed"),
    # What R's power.prop.test gives, rounded up.
    [(0.7, 0.8, 0.8, 294), (0.5, 0.75, 0.9, 77), (0.85, 0.9, 0.8, 686)],
)
def test_unpaired_episodes_are_the_published_ones(
    rate_a: float, rate_b: float, power: float, needed: int
):
    assert unpaired_episodes(rate_a, rate_b, power, 0.05) == needed


def test_a_difference_too_small_for_the_smallest_stake_is_never_found_by_the_e_process():
    pairs = pairs_of(0.7, 0.71)
    found = found_by_e_process(5000, pairs.share_b, 0.05)
    assert episodes_needed(pairs, found, 0.8) is None


@pytest.mark.parametrize(("rate", "rho"), [(0.5, 0.0), (0.5, 0.6), (0.9, 0.0), (0.1, 0.0)])
def test_a_detectable_difference_is_found_four_times_in_five(rate: float, rho: float):
    least = detectable_difference(50, rate, rho, 0.05, found_by_mcnemar)
    assert least is not None
    # Where there is room for it: 90 % can get much worse, not much better.
    other = rate + least if rate < 0.5 else rate - least
    pairs = pairs_of(min(rate, other), max(rate, other), rho)
    power = power_of(50, pairs, found_by_mcnemar(50, pairs.share_b, 0.05))
    assert power == pytest.approx(0.8, abs=0.01)


def test_more_pairs_and_likelier_seeds_detect_smaller_differences_and_five_pairs_none():
    def least(episodes: int, rho: float = 0.0, alpha: float = 0.05) -> float:
        return detectable_difference(episodes, 0.5, rho, alpha, found_by_mcnemar) or 1.0

    assert least(400) < least(100) < least(25) < 1
    assert least(100, rho=0.6) < least(100) < least(100, alpha=0.01)
    assert detectable_difference(5, 0.5, 0.0, 0.05, found_by_mcnemar) is None
