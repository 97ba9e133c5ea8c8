import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from loopdit.eval.statistics.success import clopper_pearson_interval, wilson_interval


@st.composite
def outcomes(draw: st.DrawFn) -> tuple[int, int]:
    trials = draw(st.integers(1, 5000))
    return draw(st.integers(0, trials)), trials


@given(outcomes())
def test_interval_is_the_one_scipy_computes(outcome: tuple[int, int]):
    successes, trials = outcome
    theirs = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert wilson_interval(successes, trials) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_interval_has_the_values_that_newcombe_published():
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    published = {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }
    for (successes, trials), interval in published.items():
        assert wilson_interval(successes, trials) == pytest.approx(interval, abs=5e-5)


@given(outcomes())
def test_exact_interval_is_the_one_scipy_computes(outcome: tuple[int, int]):
    successes, trials = outcome
    theirs = binomtest(successes, trials).proportion_ci(0.95, method="exact")
    found = clopper_pearson_interval(successes, trials)
    assert found == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def coverage(intervals: list[tuple[float, float]], rate: float) -> float:
    """Chance that the interval of a run with success rate `rate` holds it, over all outcomes."""
    trials = len(intervals) - 1
    held = [low <= rate <= high for low, high in intervals]
    return float(binom.pmf(np.arange(trials + 1), trials, rate) @ held)


@pytest.mark.parametrize("trials", [1, 5, 20, 50])
def test_exact_interval_holds_every_rate_in_95_of_100_runs_and_wilsons_on_average(trials: int):
    rates = np.linspace(0.001, 0.999, 999)
    exact = [clopper_pearson_interval(k, trials) for k in range(trials + 1)]
    wilson = [wilson_interval(k, trials) for k in range(trials + 1)]
    assert min(coverage(exact, rate) for rate in rates) >= 0.95
    of_wilson = [coverage(wilson, rate) for rate in rates]
    assert min(of_wilson) < 0.95  # which is why there are two
    assert np.mean(of_wilson) == pytest.approx(0.95, abs=0.01)


@given(outcomes())
def test_interval_holds_the_rate_and_mirrors_for_failures(outcome: tuple[int, int]):
    successes, trials = outcome
    low, high = wilson_interval(successes, trials)
    assert 0 <= low <= successes / trials <= high <= 1
    mirrored = wilson_interval(trials - successes, trials)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_nothing_tried_says_nothing():
    assert wilson_interval(0, 0) == (0, 1)
    assert clopper_pearson_interval(0, 0) == (0, 1)


def test_perfect_score_of_fifty_still_has_a_lower_bound_below_one():
    low, high = wilson_interval(50, 50)
    assert high == 1
    assert math.isclose(low, 50 / (50 + 1.959964**2), rel_tol=1e-6)


@pytest.mark.parametrize(("successes", "trials"), [(3, 2), (-1, 5)])
def test_impossible_counts_are_refused(successes: int, trials: int):
    for interval in (wilson_interval, clopper_pearson_interval):
        with pytest.raises(ValueError, match="successes of"):
            interval(successes, trials)
