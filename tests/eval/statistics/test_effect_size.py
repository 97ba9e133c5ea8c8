import numpy as np
import pytest
from scipy import stats
from scipy.special import gammaln

from loopdit.eval.statistics.effect_size import cohen_d, cohen_d_interval, hedges_g
from loopdit.eval.statistics.t_test import Summary


def test_d_counts_the_difference_in_pooled_standard_deviations():
    # Variances 1 and 9 with equal counts pool to 5.
    assert cohen_d(Summary(5, 1, 8), Summary(3, 3, 8)) == pytest.approx(2 / 5**0.5)


def test_hedges_factor_is_near_its_exact_form():
    a, b = Summary(1, 1, 10), Summary(0, 1, 10)
    df = 18
    exact = np.exp(gammaln(df / 2) - gammaln((df - 1) / 2)) / np.sqrt(df / 2)
    assert hedges_g(a, b) == pytest.approx(exact, rel=1e-3)


def test_the_interval_holds_the_true_d_as_often_as_it_says():
    rng = np.random.default_rng(2)
    truth, n, times = 1.5, 5, 1000
    held = 0
    for _ in range(times):
        a, b = Summary.of(rng.normal(truth, 1, n)), Summary.of(rng.normal(0, 1, n))
        low, high = cohen_d_interval(a, b, 0.9)
        held += low <= truth <= high
    # Outside these bounds by chance less than once in a million.
    low, high = stats.binom.ppf([5e-7, 1 - 5e-7], times, 0.9)
    assert low <= held <= high


def test_the_interval_excludes_zero_exactly_when_the_t_test_does():
    for difference, p in ((2.0, 0.0705), (3.0, 0.0213)):
        a, b = Summary(difference, 1, 3), Summary(0, 1, 3)
        t = difference / (2 / 3) ** 0.5
        assert 2 * stats.t.sf(t, 4) == pytest.approx(p, abs=5e-5)
        assert (cohen_d_interval(a, b)[0] > 0) == (p < 0.05)


def test_groups_without_spread_have_no_d():
    with pytest.raises(ValueError, match="neither group varies"):
        cohen_d(Summary(1, 0, 3), Summary(2, 0, 3))
