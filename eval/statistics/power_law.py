"""y = a n^-alpha: the exponent with its interval, and how well the law fits.

Fitted by least squares of log y on log n, since a loss varies by shares of itself. That is a linear
model, so the t interval of its slope IS the profile likelihood's. It takes deviations from the line
as the error; where several seeds went over the same n, each seed's exponent is one value and
`seed_exponents` gives them to a t test, which asks the better question: would another seed agree?
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from loopdit.eval.statistics.t_test import Estimate, Values


@dataclass(frozen=True)
class PowerLaw:
    """`alpha` is positive where y falls; `r2` of the logarithms."""

    alpha: Estimate
    a: float
    r2: float

    def at(self, n: float) -> float:
        """y at n."""
        return self.a * n**-self.alpha.value


def fit_power_law(n: Values, y: Values) -> PowerLaw:
    """Of at least three points with n, y > 0. Raises ValueError, as for a fit without any error."""
    x, values = np.asarray(n, dtype=float), np.asarray(y, dtype=float)
    if x.shape != values.shape or x.ndim != 1 or len(np.unique(x)) < 3:
        raise ValueError(f"a power law needs y at three or more n, not {x.shape}, {values.shape}.")
    if not (x > 0).all() or not (values > 0).all() or not np.isfinite(x * values).all():
        raise ValueError("a power law is of positive, finite numbers alone.")
    fit: Any = stats.linregress(np.log(x), np.log(values))
    return PowerLaw(
        alpha=Estimate(-float(fit.slope), float(fit.stderr), len(x) - 2),
        a=float(np.exp(fit.intercept)),
        r2=float(fit.rvalue) ** 2,
    )


def seed_exponents(n: Values, y: np.ndarray) -> np.ndarray:
    """(S,): alpha of each row of y (S, len(n)), a seed's values; without intervals."""
    log_n = np.log(np.asarray(n, dtype=float))
    centred = log_n - log_n.mean()
    return -(np.log(y) @ centred) / float(centred @ centred)


def exponent_from_print(alpha: float, r2: float, points: int) -> Estimate:
    """The exponent with the error that follows from a printed R^2 of as many points:
    R^2 / (1 - R^2) = t^2 / (points - 2)."""
    t = np.sqrt(r2 * (points - 2) / (1 - r2))
    return Estimate(alpha, abs(alpha) / float(t), points - 2)
