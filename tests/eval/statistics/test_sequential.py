import math
from itertools import product
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from loopdit.eval.statistics.sequential import PairedEProcess, log_one_sided, log_two_sided

pair_lists = st.lists(st.tuples(st.booleans(), st.booleans()), max_size=80)


def fed(pairs: list[tuple[bool, bool]]) -> PairedEProcess:
    process = PairedEProcess()
    for a, b in pairs:
        process.update(a, b)
    return process


def by_definition(differences: list[int]) -> float:
    """Mean over the stakes of prod(1 + stake d), as section 7 of the methodology writes it."""
    stakes = np.arange(0.1, 0.95, 0.1)
    return float(np.mean(np.prod(1 + np.multiply.outer(stakes, differences), axis=-1)))


def counts(differences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Discordant pairs so far (runs, n) of A alone and of B alone."""
    return np.cumsum(differences < 0, axis=1), np.cumsum(differences > 0, axis=1)


def simulated(rate_a: float, rate_b: float, runs: int, most: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    a, b = rng.random((runs, most)) < rate_a, rng.random((runs, most)) < rate_b
    return b.astype(int) - a.astype(int)


@given(pair_lists)
def test_the_value_is_the_one_of_the_definition(pairs: list[tuple[bool, bool]]):
    differences = [b - a for a, b in pairs]
    expected = (by_definition(differences) + by_definition([-d for d in differences])) / 2
    process = fed(pairs)
    assert process.e_value == pytest.approx(expected, rel=1e-9)
    assert process.e_peak >= process.e_value * (1 - 1e-12)
    assert process.pairs == len(pairs)


@given(st.lists(st.sampled_from([-1, 0, 1]), max_size=6), st.integers(1, 6))
def test_one_sided_value_is_a_martingale_while_both_are_equally_good(past: list[int], more: int):
    """From any past, the mean over all fair futures is what it is now; and it is never negative."""

    def value(differences: list[int]) -> float:
        return float(np.exp(log_one_sided(differences.count(1), differences.count(-1))))

    futures = [[*past, *future] for future in product((-1, 1), repeat=more)]
    assert np.mean([value(future) for future in futures]) == pytest.approx(value(past), rel=1e-9)
    assert min(value(future) for future in futures) > 0
    assert value([]) == pytest.approx(1)


@given(pair_lists, st.randoms(use_true_random=False))
def test_order_does_not_matter_and_neither_do_concordant_pairs(
    pairs: list[tuple[bool, bool]], random: Random
):
    shuffled = list(pairs)
    random.shuffle(shuffled)
    assert fed(shuffled).log_e_value == fed(pairs).log_e_value
    assert fed([pair for pair in pairs if pair[0] != pair[1]]).e_value == fed(pairs).e_value


@given(pair_lists)
def test_exchanging_a_and_b_exchanges_the_direction_alone(pairs: list[tuple[bool, bool]]):
    process, mirrored = fed(pairs), fed([(b, a) for a, b in pairs])
    assert mirrored.e_value == pytest.approx(process.e_value, rel=1e-12)
    assert (process.direction, mirrored.direction) in {("a", "b"), ("b", "a"), (None, None)}


def test_looking_after_every_pair_finds_what_is_not_there_in_at_most_5_of_100_runs():
    runs = 1000
    only_a, only_b = counts(simulated(0.7, 0.7, runs, most=400, seed=0))
    found = int(np.sum(log_two_sided(only_a, only_b).max(axis=1) >= math.log(20)))
    # By chance a test of exactly 5 % exceeds this once in a million.
    assert found <= binom.isf(1e-6, runs, 0.05)
    # A z test of the discordant pairs, looked at as often, does not keep it.
    z = np.abs(only_b - only_a) / np.sqrt(np.maximum(only_a + only_b, 1))
    peeked = int(np.sum((z[:, 20:] > 1.96).any(axis=1)))
    assert peeked > binom.isf(1e-6, runs, 0.05)


def test_a_large_difference_stops_it_early_and_the_right_way():
    for run in simulated(0.5, 0.7, runs=20, most=400, seed=1):
        process = PairedEProcess()
        for difference in run:
            process.update(difference < 0, difference > 0)
            if process.rejects(0.05):
                break
        assert process.rejects(0.05)
        assert process.direction == "b"
        assert process.pairs < 400


def test_more_comparisons_need_more_evidence():
    process = fed([(False, True)] * 8)
    assert 20 <= process.e_value < 60
    assert process.rejects(0.05)
    assert not process.rejects(0.05, comparisons=3)
    assert not process.rejects(0.01)
    assert process.rejects(0.05, comparisons=int(process.e_value / 20))


def test_what_was_shown_stays_shown():
    process = fed([(False, True)] * 8 + [(True, False)] * 8)
    assert process.e_value < 20 < process.e_peak
    assert process.rejects(0.05)


def test_evidence_without_end_stays_a_number():
    process = fed([(False, True)] * 3000)
    assert math.isfinite(process.e_value)
    assert process.log_e_value == pytest.approx(3000 * math.log(1.9) - math.log(18), rel=1e-9)
    assert process.direction == "b"


def test_nothing_seen_says_nothing():
    process = PairedEProcess()
    assert (process.e_value, process.e_peak) == pytest.approx((1, 1))
    assert process.direction is None
    assert not process.rejects(0.05)
