import math

import numpy as np
import pytest
from scipy import stats

from loopdit.eval.statistics.rank_correlation import (
    exact_p,
    page_p,
    seed_correlations,
    spearman,
)


def test_a_perfect_order_of_six_is_chance_once_in_360():
    found = spearman([1, 2, 4, 8, 16, 32], [6, 5, 4, 3, 2, 1])
    assert found.rho == pytest.approx(-1)
    assert found.p == pytest.approx(2 / 720)


def test_an_order_of_three_shows_nothing():
    # All six orders of three points have |rho| = 1 or 1/2.
    assert exact_p([1, 2, 3], [2.35, 1.20, 1.59]) == 1
    assert exact_p([1, 2, 3], [3, 2, 1]) == pytest.approx(2 / 6)


def test_rho_agrees_with_scipy_and_the_exact_p_with_its_permutation_test():
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=7), np.round(rng.normal(size=7), 0)  # with ties
    found = spearman(x, y)
    assert found.rho == pytest.approx(stats.spearmanr(x, y)[0])
    known = stats.permutation_test(
        (x,),
        lambda order: stats.spearmanr(order, y)[0],
        permutation_type="pairings",
        n_resamples=6000,
    )
    assert found.p == pytest.approx(known.pvalue)


def test_with_many_points_p_is_that_of_scipy():
    rng = np.random.default_rng(7)
    x, y = rng.normal(size=30), rng.normal(size=30)
    assert spearman(x, y).p == pytest.approx(stats.spearmanr(x, y)[1])


def test_the_interval_holds_the_true_correlation_as_often_as_it_says():
    rng = np.random.default_rng(8)
    pearson, times = 0.6, 1000
    truth = 6 / math.pi * math.asin(pearson / 2)  # Spearman's rho of a bivariate normal
    held = 0
    for _ in range(times):
        x = rng.normal(size=25)
        y = pearson * x + math.sqrt(1 - pearson**2) * rng.normal(size=25)
        found = spearman(x, y)
        held += found.low <= truth <= found.high
    low, high = stats.binom.ppf([5e-7, 1 - 5e-7], times, 0.95)
    assert low <= held <= high


def test_pages_test_gives_the_published_p_of_its_example():
    # Page 1963, as in scipy: students' ratings of tutorial, lecture, seminar; L = 133.5, p = .0018
    ratings = np.array(
        [[3, 4, 3], [2, 2, 4], [3, 3, 5], [1, 3, 2], [2, 3, 2], [2, 4, 5], [1, 2, 4], [3, 4, 4], [2, 4, 5], [1, 3, 4]]  # noqa: E501
    )  # fmt: skip
    by_effort = ratings[:, [0, 2, 1]]
    known = stats.page_trend_test(ratings).pvalue
    assert page_p([1, 3, 2], by_effort, rising=True) == pytest.approx(known)
    assert known < 0.01 < page_p([1, 2, 3], ratings, rising=False)


def test_the_mean_of_correlations_over_seeds_is_pages_statistic():
    rng = np.random.default_rng(9)
    y = rng.normal(size=(4, 5))
    ranks = np.argsort(np.argsort(y, axis=1), axis=1) + 1
    page = float(np.sum(ranks * np.arange(1, 6)))
    mean_rho = float(seed_correlations([1, 2, 3, 4, 5], y).mean())
    # L runs from 4 * 35 (all fall) to 4 * 55 (all rise).
    assert mean_rho == pytest.approx((page - 4 * 45) / (4 * 10))


@pytest.mark.parametrize(("x", "y"), [([1, 2, 3], [1, 2, 3]), ([1, 2, 3, 4], [1, 1, 1, 1])])
def test_what_has_no_order_to_speak_of_is_refused(x: list[float], y: list[float]):
    with pytest.raises(ValueError, match=r"four or more|no order"):
        spearman(x, y)
