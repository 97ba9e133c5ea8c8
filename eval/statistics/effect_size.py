"""Cohen's d with its interval: a difference counted in standard deviations.

    d = (mean A - mean B) / s,  s^2 = ((n_A - 1) s_A^2 + (n_B - 1) s_B^2) / (n_A + n_B - 2)

Its interval inverts the noncentral t (Steiger and Fouladi 1997). With few values d is too large on
average by 1 / J, J = 1 - 3 / (4 df - 1) (Hedges 1981): at n = 3 a side, by a quarter.
"""

import math
from typing import Any

from scipy import optimize, stats

from loopdit.eval.statistics.t_test import Summary, pooled, pooled_std


def cohen_d(a: Summary, b: Summary) -> float:
    """d. Raises ValueError where neither varies."""
    spread = pooled_std(a, b)
    if spread == 0:
        raise ValueError("d is a difference in standard deviations, and neither group varies.")
    return (a.mean - b.mean) / spread


def hedges_g(a: Summary, b: Summary) -> float:
    """d without its bias of few values, by the usual approximation of J."""
    return cohen_d(a, b) * (1 - 3 / (4 * (a.n + b.n - 2) - 1))


def cohen_d_interval(a: Summary, b: Summary, level: float = 0.95) -> tuple[float, float]:
    """The true d for which a t as far out as the one found has a chance of (1 - level) / 2."""
    t, df, tail = pooled(a, b).t(), a.n + b.n - 2, (1 - level) / 2
    scale = math.sqrt(1 / a.n + 1 / b.n)
    # P(T <= t) falls with the noncentrality, from 1 to 0.
    low, high = (_noncentrality(t, df, chance) for chance in (1 - tail, tail))
    return low * scale, high * scale


def _noncentrality(t: float, df: float, chance: float) -> float:
    def excess(noncentrality: float) -> float:
        return 1 - float(stats.nct.sf(t, df, noncentrality)) - chance

    # Some widths beyond t on either side hold both bounds. Of scipy's two tails the upper one is
    # a number further out.
    reach = 5.0
    while excess(t - reach) < 0 or excess(t + reach) > 0:
        reach *= 1.5
    root: Any = optimize.brentq(excess, t - reach, t + reach, xtol=1e-10)
    return float(root)
