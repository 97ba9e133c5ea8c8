"""Student's and Welch's t: estimates whose error is t distributed, and what they show.

An `Estimate` is a number with its standard error and degrees of freedom. The test that it is zero,
its interval, and the test that it is nearly zero (two one-sided tests, Schuirmann 1987) are
questions to one and the same estimate. Made from values, or from what papers print of them: mean,
standard deviation (ddof = 1) and n.

Knows of no ratio: take logarithms before, and the difference is the logarithm of a ratio of
geometric means.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

Values = Sequence[float] | np.ndarray


@dataclass(frozen=True)
class Summary:
    """Mean, standard deviation with ddof = 1, and number of values."""

    mean: float
    std: float
    n: int

    def __post_init__(self) -> None:
        if self.n < 2 or not self.std >= 0 or not math.isfinite(self.mean):
            raise ValueError(f"{self} is no summary of two or more finite values.")

    @classmethod
    def of(cls, values: Values) -> "Summary":
        """Of at least two finite values. Raises ValueError."""
        array = np.asarray(values, dtype=float)
        if array.ndim != 1 or len(array) < 2 or not np.isfinite(array).all():
            raise ValueError(f"a t test needs two or more finite values, not {array.tolist()}.")
        return cls(float(array.mean()), float(array.std(ddof=1)), len(array))


@dataclass(frozen=True)
class Estimate:
    """A value with its standard error and degrees of freedom. Raises ValueError for an error of 0:
    values that are all alike tell nothing of how far they would vary."""

    value: float
    error: float
    df: float

    def __post_init__(self) -> None:
        if not self.error > 0 or not self.df > 0:
            raise ValueError(
                f"the standard error is {self.error:g} with {self.df:g} degrees of freedom: values "
                f"that are all the same cannot be tested."
            )

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """(low, high) at the two-sided level."""
        half = float(stats.t.isf((1 - level) / 2, self.df)) * self.error
        return self.value - half, self.value + half

    def p_value(self, null: float = 0.0) -> float:
        """Two-sided p value of "it is `null`"."""
        return 2 * float(stats.t.sf(abs(self.t(null)), self.df))

    def p_above(self, bound: float) -> float:
        """One-sided p value of "it is at most `bound`": small when it is shown to be above."""
        return float(stats.t.sf(self.t(bound), self.df))

    def p_below(self, bound: float) -> float:
        """One-sided p value of "it is at least `bound`": small when it is shown to be below."""
        return float(stats.t.cdf(self.t(bound), self.df))

    def p_within(self, low: float, high: float) -> float:
        """TOST: p value of "it is outside (low, high)", the larger of both one-sided ones.

        At or below alpha if and only if the interval of level 1 - 2 alpha lies inside.
        """
        if not low < high:
            raise ValueError(f"({low:g}, {high:g}) is no margin: it must rise.")
        return max(self.p_above(low), self.p_below(high))

    def p_outside(self, low: float, high: float) -> float:
        """p value of "it is within [low, high]": small when it is shown to lie outside. Twice the
        smaller one-sided one, as it may be on either side."""
        if not low <= high:
            raise ValueError(f"[{low:g}, {high:g}] is no range: it must rise.")
        return min(1.0, 2 * min(self.p_below(low), self.p_above(high)))

    def t(self, null: float = 0.0) -> float:
        """The statistic."""
        return (self.value - null) / self.error


def one_sample(values: Values) -> Estimate:
    """The mean of independent values; of differences within pairs, it is the paired test."""
    return of_mean(Summary.of(values))


def of_mean(values: Summary) -> Estimate:
    """`one_sample` from a summary."""
    return Estimate(values.mean, values.std / math.sqrt(values.n), values.n - 1)


def paired(a: Values, b: Values) -> Estimate:
    """Mean of A - B over pairs. Raises ValueError for lists of different length."""
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if first.shape != second.shape:
        raise ValueError(f"pairs need two lists of one length, not {first.shape}, {second.shape}.")
    return one_sample(first - second)


def welch(a: Summary, b: Summary) -> Estimate:
    """Mean of A minus mean of B, whose variances may differ (Welch 1947, Satterthwaite's df)."""
    first, second = a.std**2 / a.n, b.std**2 / b.n
    total = first + second
    if total == 0:
        return Estimate(a.mean - b.mean, 0.0, a.n + b.n - 2)  # which refuses
    df = total**2 / (first**2 / (a.n - 1) + second**2 / (b.n - 1))
    return Estimate(a.mean - b.mean, math.sqrt(total), df)


def pooled(a: Summary, b: Summary) -> Estimate:
    """Mean of A minus mean of B, whose variances are taken to be one (Student)."""
    spread = pooled_std(a, b)
    return Estimate(a.mean - b.mean, spread * math.sqrt(1 / a.n + 1 / b.n), a.n + b.n - 2)


def pooled_std(a: Summary, b: Summary) -> float:
    """The standard deviation that both are taken to have."""
    squares = (a.n - 1) * a.std**2 + (b.n - 1) * b.std**2
    return math.sqrt(squares / (a.n + b.n - 2))
