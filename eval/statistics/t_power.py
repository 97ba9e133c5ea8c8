"""Power of t and F tests: the chance of finding an effect, and how many values that takes.

An effect is counted in standard deviations: Cohen's d of two means, d of the differences within
pairs, Cohen's f of many means (f^2 = eta^2 / (1 - eta^2)). The statistic is then noncentral t or F
(Cohen 1988). `planning` is for success rates.
"""

import math
from collections.abc import Callable

from scipy import stats

_MOST = 1_000_000


def two_sample_power(d: float, n: float, alpha: float = 0.05, sides: int = 2) -> float:
    """Of a t test of two groups of n values each. One-sided: in the direction of d > 0."""
    return _power(d * math.sqrt(n / 2), 2 * n - 2, alpha, sides)


def one_sample_power(d: float, n: float, alpha: float = 0.05, sides: int = 2) -> float:
    """Of a t test of one group, or of the differences within n pairs."""
    return _power(d * math.sqrt(n), n - 1, alpha, sides)


def f_power(f: float, df_effect: int, df_error: int, n: int, alpha: float = 0.05) -> float:
    """Of an F test in a design with n values in all; f is Cohen's, not the statistic."""
    critical = stats.f.isf(alpha, df_effect, df_error)
    return float(stats.ncf.sf(critical, df_effect, df_error, f**2 * n))


def two_sample_n(d: float, power: float = 0.8, alpha: float = 0.05, sides: int = 2) -> int:
    """The fewest values in EACH group that find d with chance `power`."""
    return _fewest(lambda n: two_sample_power(d, n, alpha, sides), d, power)


def one_sample_n(d: float, power: float = 0.8, alpha: float = 0.05, sides: int = 2) -> int:
    """The fewest pairs that find d with chance `power`."""
    return _fewest(lambda n: one_sample_power(d, n, alpha, sides), d, power)


def _power(noncentrality: float, df: float, alpha: float, sides: int) -> float:
    if sides not in (1, 2) or not df > 0:
        raise ValueError(f"a t test has one or two sides and df above 0, not {sides} and {df:g}.")
    critical = stats.t.isf(alpha / sides, df)
    found = float(stats.nct.sf(critical, df, noncentrality))
    if sides == 2:
        # By symmetry; scipy's cdf loses digits in the far tail, its sf does not.
        found += float(stats.nct.sf(critical, df, -noncentrality))
    return min(1.0, found)


def _fewest(power_at: Callable[[int], float], d: float, power: float) -> int:
    if not d > 0 or not 0 < power < 1:
        raise ValueError(f"no number of values finds d = {d:g} with chance {power:g}.")
    few, many = 1, 2
    while power_at(many) < power:
        few, many = many, 2 * many
        if many > _MOST:
            raise ValueError(f"more than {_MOST} values are needed to find d = {d:g}.")
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if power_at(middle) >= power else (middle, many)
    return many
