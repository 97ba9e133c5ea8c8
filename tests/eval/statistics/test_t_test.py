from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.weightstats import ttost_ind, ttost_paired

from loopdit.eval.statistics.t_test import Estimate, Summary, one_sample, paired, pooled, welch

# Student's sleep data: extra hours on two drugs, ten patients (Biometrika 1908); R prints
# t = -4.0621, p = 0.002833 paired, and t = -1.8608, df = 17.776, p = 0.07939 by Welch.
FIRST = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SECOND = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def test_the_paired_test_gives_what_is_published_of_students_sleep_data():
    found = paired(FIRST, SECOND)
    assert found.t() == pytest.approx(-4.0621, abs=5e-5)
    assert found.p_value() == pytest.approx(0.002833, abs=5e-7)
    assert found.interval() == pytest.approx((-2.4598858, -0.7001142), abs=1e-6)


def test_welchs_test_gives_what_is_published_of_students_sleep_data():
    found = welch(Summary.of(FIRST), Summary.of(SECOND))
    assert found.t() == pytest.approx(-1.8608, abs=5e-5)
    assert found.df == pytest.approx(17.776, abs=5e-4)
    assert found.p_value() == pytest.approx(0.07939, abs=5e-6)
    assert found.interval() == pytest.approx((-3.3654832, 0.2054832), abs=1e-6)


@pytest.mark.parametrize(("ours", "equal"), [(welch, False), (pooled, True)])
def test_two_groups_agree_with_scipy(ours: object, equal: bool):
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 2, 7), rng.normal(0, 0.3, 4)
    found = (welch if ours is welch else pooled)(Summary.of(a), Summary.of(b))
    known: Any = stats.ttest_ind(a, b, equal_var=equal)
    assert found.p_value() == pytest.approx(known.pvalue)
    assert found.interval(0.9) == pytest.approx(tuple(known.confidence_interval(0.9)))


def test_equivalence_agrees_with_statsmodels():
    rng = np.random.default_rng(1)
    a, b = rng.normal(0, 1, 9), rng.normal(0.2, 2, 9)
    unpaired = welch(Summary.of(a), Summary.of(b)).p_within(-1, 1.5)
    assert unpaired == pytest.approx(ttost_ind(a, b, -1, 1.5, usevar="unequal")[0])
    assert paired(a, b).p_within(-1, 1.5) == pytest.approx(ttost_paired(a, b, -1, 1.5)[0])


@given(st.floats(-3, 3), st.floats(0.01, 2), st.integers(1, 50), st.floats(0.05, 3))
def test_equivalence_at_5_percent_is_the_90_percent_interval_within_the_margin(
    value: float, error: float, df: int, margin: float
):
    found = Estimate(value, error, df)
    low, high = found.interval(0.90)
    inside = -margin < low and high < margin
    p = found.p_within(-margin, margin)
    assert p == pytest.approx(0.05, abs=1e-6) or (p < 0.05) == inside
    # Nothing is shown to be both.
    assert not (p < 0.05 and found.p_outside(-margin, margin) < 0.05)


def test_one_sided_p_values_are_halves_of_the_two_sided_one():
    found = one_sample(FIRST)
    assert found.p_above(0) == pytest.approx(found.p_value() / 2)
    assert found.p_above(0) + found.p_below(0) == pytest.approx(1)


@pytest.mark.parametrize("values", [[1.0], [], [1.0, float("nan")], [1.0, float("inf")]])
def test_what_has_no_error_is_refused(values: list[float]):
    with pytest.raises(ValueError, match="two or more finite values"):
        Summary.of(values)


def test_values_that_are_all_the_same_cannot_be_tested():
    with pytest.raises(ValueError, match="all the same"):
        one_sample([0.5, 0.5, 0.5])
    with pytest.raises(ValueError, match="all the same"):
        welch(Summary(1.0, 0.0, 3), Summary(2.0, 0.0, 3))


def test_pairs_need_lists_of_one_length():
    with pytest.raises(ValueError, match="one length"):
        paired([1.0, 2.0], [1.0, 2.0, 3.0])
