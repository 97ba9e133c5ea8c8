import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import FTestAnovaPower, TTestIndPower, TTestPower

from loopdit.eval.statistics.t_power import (
    f_power,
    one_sample_n,
    one_sample_power,
    two_sample_n,
    two_sample_power,
)


def test_power_is_what_rs_power_t_test_prints():
    # power.t.test(n = 20, delta = 1): 0.8689528; (power = .90, delta = 1): n = 22.02110;
    # the same one-sided: n = 17.84713. It leaves out the tail on the other side.
    assert two_sample_power(1, 20) == pytest.approx(0.8689528, abs=1e-6)
    assert two_sample_n(1, 0.9) == 23
    assert two_sample_power(1, 22.02110) == pytest.approx(0.9, abs=1e-6)
    assert two_sample_power(1, 17.84713, sides=1) == pytest.approx(0.9, abs=1e-6)


def test_cohens_table_asks_for_64_values_at_a_medium_effect():
    # Cohen 1988, table 2.4.1: d = .2, .5, .8 at power .80 and two-sided 5 %
    assert [two_sample_n(d) for d in (0.2, 0.5, 0.8)] == [394, 64, 26]


@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize("d", [0.3, 0.7, 1.5])
def test_power_agrees_with_statsmodels(d: float, sides: int):
    alternative = {1: "larger", 2: "two-sided"}[sides]
    for n in (3, 5, 10):
        two = TTestIndPower().power(d, n, 0.05, alternative=alternative)
        one = TTestPower().power(d, n, 0.05, alternative=alternative)
        assert two_sample_power(d, n, sides=sides) == pytest.approx(two, rel=1e-6)
        assert one_sample_power(d, n, sides=sides) == pytest.approx(one, rel=1e-6)


def test_power_of_an_f_test_agrees_with_statsmodels():
    known = FTestAnovaPower().power(0.4, 36, 0.05, k_groups=4)
    assert f_power(0.4, 3, 32, 36) == pytest.approx(known, rel=1e-6)


def test_power_is_the_share_of_tests_that_find_the_effect():
    rng = np.random.default_rng(3)
    times = 20_000
    draws = rng.normal(1.0, 1, (times, 6))
    found = np.mean(np.asarray(stats.ttest_1samp(draws, 0, axis=1)[1]) <= 0.05)
    expected = one_sample_power(1.0, 6)
    assert found == pytest.approx(expected, abs=5 * (expected * (1 - expected) / times) ** 0.5)


def test_without_an_effect_power_is_alpha():
    assert two_sample_power(0, 5) == pytest.approx(0.05)
    assert one_sample_power(0, 5, sides=1) == pytest.approx(0.05)


def test_the_fewest_pairs_find_the_effect_and_one_less_does_not():
    n = one_sample_n(0.5)
    assert one_sample_power(0.5, n) >= 0.8 > one_sample_power(0.5, n - 1)


@pytest.mark.parametrize(("d", "power"), [(0.0, 0.8), (-1.0, 0.8), (1.0, 1.0), (1e-5, 0.8)])
def test_what_no_number_of_values_finds_is_refused(d: float, power: float):
    with pytest.raises(ValueError, match="values"):
        two_sample_n(d, power)
