"""Two-way analysis of variance, from the cells' means, standard deviations and counts.

Cells need not have equally many values, but each combination of levels needs some: sums of squares
are of type II (a factor's is what it explains beyond the other; the interaction's, beyond both).
In balanced designs all types are one. From cells alone because a paper prints no more, and nothing
is lost: what is fitted are cell means, and the error is what varies within cells.

    eta^2 = SS / SS_total        partial eta^2 = SS / (SS + SS_error)
    omega^2 = (SS - df MS_error) / (SS_total + MS_error)
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize, stats

from loopdit.eval.statistics.t_test import Estimate, Summary

Cells = Mapping[tuple[str, str], Summary]


@dataclass(frozen=True)
class Effect:
    """One row of the table. `statistic` is its F, `n` the number of all values; `omega2` may fall
    below 0 by chance."""

    ss: float
    df: int
    df_error: int
    n: int
    statistic: float
    p: float
    eta2: float
    partial_eta2: float
    omega2: float

    def f2_interval(self, level: float = 0.90) -> tuple[float, float]:
        """Of Cohen's f^2, by inverting the noncentral F. 90 % is customary: its lower bound leaves
        0 exactly when p is below 0.05 (Steiger 2004)."""
        tail = (1 - level) / 2
        return self._f2_at(1 - tail), self._f2_at(tail)

    def p_below(self, f2: float) -> float:
        """p value of "f^2 is at least this": small when the effect is shown to be smaller, which
        is how an F test shows that there is nearly none (Wellek 2010, chapter 7)."""
        return float(stats.ncf.cdf(self.statistic, self.df, self.df_error, f2 * self.n))

    def p_above(self, f2: float) -> float:
        """p value of "f^2 is at most this": small when the effect is shown to be larger."""
        if f2 == 0:
            return self.p  # scipy's ncf.sf is negative there
        return float(stats.ncf.sf(self.statistic, self.df, self.df_error, f2 * self.n))

    def _f2_at(self, chance: float) -> float:
        """f^2 at which an F as low as the one found has this chance; 0 where none has."""

        def excess(f2: float) -> float:
            return self.p_below(f2) - chance

        if excess(0.0) <= 0:
            return 0.0
        high = 1.0
        while excess(high) > 0:
            high *= 2
        root: Any = optimize.brentq(excess, 0.0, high, xtol=1e-12)
        return float(root)


@dataclass(frozen=True)
class Anova:
    """Effects of both factors and of their interaction, and the error they are judged by."""

    a: Effect
    b: Effect
    interaction: Effect
    ss_error: float
    df_error: int
    ss_total: float

    @property
    def ms_error(self) -> float:
        """The variance within cells, pooled."""
        return self.ss_error / self.df_error

    @property
    def error_eta2(self) -> float:
        """The share of all variation that no factor explains."""
        return self.ss_error / self.ss_total


def two_way(cells: Cells) -> Anova:
    """{(level of a, level of b): its values}. Raises ValueError for a missing combination, for a
    factor with one level, and where nothing varies within cells."""
    levels_a, levels_b = (list(dict.fromkeys(key[i] for key in cells)) for i in (0, 1))
    missing = [(a, b) for a in levels_a for b in levels_b if (a, b) not in cells]
    if missing or len(levels_a) < 2 or len(levels_b) < 2:
        raise ValueError(
            f"two-way ANOVA needs two levels of each factor and every combination of them; "
            f"missing: {missing or 'a second level'}."
        )
    keys = [(a, b) for a in levels_a for b in levels_b]
    mean, std, n = (
        np.array([getattr(cells[key], name) for key in keys], dtype=float)
        for name in ("mean", "std", "n")
    )
    one = np.ones((len(keys), 1))
    dummies_a = np.array([[a == level for level in levels_a[1:]] for a, _ in keys], dtype=float)
    dummies_b = np.array([[b == level for level in levels_b[1:]] for _, b in keys], dtype=float)

    def unexplained(*columns: np.ndarray) -> float:
        """Sum of squares, of cell means weighted by counts, about the best fit of the columns."""
        weights = np.sqrt(n)[:, None]
        design = np.hstack(columns) * weights
        fitted = design @ np.linalg.lstsq(design, weights[:, 0] * mean, rcond=None)[0]
        return float(np.sum((weights[:, 0] * mean - fitted) ** 2))

    additive = unexplained(one, dummies_a, dummies_b)
    squares = {
        "a": (unexplained(one, dummies_b) - additive, len(levels_a) - 1),
        "b": (unexplained(one, dummies_a) - additive, len(levels_b) - 1),
        "interaction": (additive, (len(levels_a) - 1) * (len(levels_b) - 1)),
    }
    total = int(n.sum())
    ss_error, df_error = float(np.sum((n - 1) * std**2)), total - len(keys)
    if ss_error == 0:
        raise ValueError("nothing varies within cells: there is no error to judge effects by.")
    ss_total = ss_error + unexplained(one)
    effects = {
        name: _effect(max(0.0, ss), df, ss_error, df_error, ss_total, total)
        for name, (ss, df) in squares.items()
    }
    return Anova(**effects, ss_error=ss_error, df_error=df_error, ss_total=ss_total)


def level_difference(cells: Cells, first: str, second: str) -> Estimate:
    """Mean over b of level `first` of factor a minus that of level `second`, by the error pooled
    over all cells: the pairwise test that follows a balanced ANOVA (Fisher's), uncorrected."""
    error = two_way(cells)
    levels_b = list(dict.fromkeys(b for _, b in cells))
    value, variance = 0.0, 0.0
    for level, sign in ((first, 1), (second, -1)):
        for b in levels_b:
            value += sign * cells[level, b].mean / len(levels_b)
            variance += error.ms_error / cells[level, b].n / len(levels_b) ** 2
    return Estimate(value, math.sqrt(variance), error.df_error)


def _effect(ss: float, df: int, ss_error: float, df_error: int, ss_total: float, n: int) -> Effect:
    ms_error = ss_error / df_error
    ratio = ss / df / ms_error
    return Effect(
        ss=ss,
        df=df,
        df_error=df_error,
        n=n,
        statistic=ratio,
        p=float(stats.f.sf(ratio, df, df_error)),
        eta2=ss / ss_total,
        partial_eta2=ss / (ss + ss_error),
        omega2=(ss - df * ms_error) / (ss_total + ms_error),
    )
