import numpy as np
import pytest
from statsmodels.regression.linear_model import OLS
from statsmodels.tools import add_constant

from loopdit.eval.statistics.power_law import exponent_from_print, fit_power_law, seed_exponents

N = np.array([1, 2, 4, 8, 16, 32])


def noisy(seed: int, alpha: float = 0.3) -> np.ndarray:
    return 2.0 * N**-alpha * np.exp(np.random.default_rng(seed).normal(0, 0.05, len(N)))


def test_the_fit_and_its_interval_agree_with_statsmodels():
    y = noisy(0)
    known = OLS(np.log(y), add_constant(np.log(N))).fit()
    found = fit_power_law(N, y)
    assert found.alpha.value == pytest.approx(-known.params[1])
    low, high = known.conf_int(0.05)[1]
    assert found.alpha.interval() == pytest.approx((-high, -low))
    assert found.r2 == pytest.approx(known.rsquared)
    assert found.at(4) == pytest.approx(np.exp(known.predict([[1, np.log(4)]])[0]))


def test_the_interval_is_where_the_profile_likelihood_has_fallen_by_its_quantile():
    x, y = np.log(N), np.log(noisy(1))
    found = fit_power_law(N, noisy(1))

    def unexplained(slope: float) -> float:
        rest = y + slope * x
        return float(np.sum((rest - rest.mean()) ** 2))

    least = unexplained(found.alpha.value)
    t2 = 2.7764451051977987**2  # t quantile at 0.975 with 4 degrees of freedom
    for bound in found.alpha.interval():
        assert unexplained(bound) == pytest.approx(least * (1 + t2 / 4))


def test_the_exponent_of_each_seed_is_that_of_its_own_fit():
    y = np.stack([noisy(seed) for seed in range(3)])
    expected = [fit_power_law(N, row).alpha.value for row in y]
    assert seed_exponents(N, y) == pytest.approx(expected)


def test_the_error_of_an_exponent_follows_from_its_printed_r2():
    found = fit_power_law(N, noisy(2))
    again = exponent_from_print(found.alpha.value, found.r2, len(N))
    assert again.error == pytest.approx(found.alpha.error)


@pytest.mark.parametrize("y", [[1, 2, -1, 1, 1, 1], [1, 2, 3], [1, 2, 3, 0, 1, 1]])
def test_what_no_power_law_can_be_fitted_to_is_refused(y: list[float]):
    with pytest.raises(ValueError, match="power law"):
        fit_power_law(N, y)
