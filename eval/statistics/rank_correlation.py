"""Does y rise or fall with x? Spearman's rank correlation, of one sequence or over seeds.

Of one sequence the p value is exact up to 8 points, by going through all orders, and the interval
is Fisher's z with Bonett and Wright's (2000) error, sqrt((1 + rho^2 / 2) / (n - 3)). Where several
seeds went over the same x, the mean of their correlations is Page's L (1963) in other units, whose
exact p value takes each seed's order as equally likely.
"""

import math
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from scipy import stats

from loopdit.eval.statistics.t_test import Values

_EXACT = 8  # 40,320 orders; the t approximation is good to a few percent from there


@dataclass(frozen=True)
class RankCorrelation:
    """rho with a 95 % interval and the two-sided p value of "no order"."""

    rho: float
    low: float
    high: float
    p: float


def spearman(x: Values, y: Values, level: float = 0.95) -> RankCorrelation:
    """Of at least four points: with three even a perfect order is chance in 1 of 3 cases, and
    the interval is not defined. Raises ValueError, as for values that are all alike."""
    first, second = _ranks(x), _ranks(y)
    if first.shape != second.shape or first.ndim != 1 or len(first) < 4:
        raise ValueError(f"needs four or more pairs, not {first.shape} and {second.shape}.")
    rho = _correlation(first, second)
    n = len(first)
    known: Any = stats.spearmanr(first, second)
    p = exact_p(x, y) if n <= _EXACT else float(known.pvalue)
    if abs(rho) > 1 - 1e-12:
        # Fisher's z has no value there, and n points without an exception no width to give.
        return RankCorrelation(rho, rho, rho, p)
    half = stats.norm.isf((1 - level) / 2) * math.sqrt((1 + rho**2 / 2) / (n - 3))
    z = math.atanh(rho)
    return RankCorrelation(rho, math.tanh(z - half), math.tanh(z + half), p)


def exact_p(x: Values, y: Values) -> float:
    """Two-sided: the share of all orders of y whose rho is as far from 0. Of up to 8 points."""
    first, second = _ranks(x), _ranks(y)
    if len(first) > _EXACT:
        raise ValueError(f"{len(first)} points have too many orders; the most is {_EXACT}.")
    found = abs(_correlation(first, second))
    orders = np.array(list(permutations(second)))
    centred = first - first.mean()
    norm = math.sqrt(float(centred @ centred)) * float(np.std(second)) * math.sqrt(len(second))
    return float(np.mean(np.abs(orders @ centred) / norm >= found - 1e-9))


def seed_correlations(x: Values, y: np.ndarray) -> np.ndarray:
    """(S,): rho of each row of y (S, len(x))."""
    return np.array([_correlation(_ranks(x), _ranks(row)) for row in np.asarray(y, dtype=float)])


def page_p(x: Values, y: np.ndarray, rising: bool) -> float:
    """One-sided p value of "no order", against a rise (or a fall) of y (S >= 2, at least 3) with
    x over seeds."""
    order = np.argsort(np.asarray(x, dtype=float), kind="stable")
    values = np.asarray(y, dtype=float)[:, order]
    return float(stats.page_trend_test(values if rising else -values).pvalue)


def _ranks(values: Values) -> np.ndarray:
    return stats.rankdata(np.asarray(values, dtype=float))


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        raise ValueError("values that are all the same have no order.")
    return float(np.corrcoef(first, second)[0, 1])
