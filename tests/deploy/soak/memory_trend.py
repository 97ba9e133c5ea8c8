"""Whether memory grows: the slope of samples over time, with its interval.

Samples of a process's memory that follow each other are alike, so an interval from all of them
would be far too narrow. The means of BLOCKS stretches are nearly independent: the line is fitted to
those (ordinary least squares, Student's t).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

BLOCKS = 20


@dataclass(frozen=True)
class Trend:
    """MiB an hour, with the 95 % interval; `growth_mib` over the time that was looked at."""

    slope: float
    low: float
    high: float
    growth_mib: float
    blocks_mib: tuple[float, ...]

    def __str__(self) -> str:
        return (
            f"{self.slope:+.2f} MiB an hour ({self.low:+.2f} to {self.high:+.2f}), "
            f"{self.growth_mib:+.2f} MiB in all: {' '.join(f'{b:.1f}' for b in self.blocks_mib)}"
        )


def trend_of(seconds: Sequence[float], mib: Sequence[float]) -> Trend:
    """Of samples at these times, in order; at least BLOCKS of them."""
    times, values = np.asarray(seconds) / 3600, np.asarray(mib)
    x = np.array([part.mean() for part in np.array_split(times, BLOCKS)])
    y = np.array([part.mean() for part in np.array_split(values, BLOCKS)])
    fit: Any = stats.linregress(x, y)
    half = stats.t.ppf(0.975, BLOCKS - 2) * fit.stderr
    growth = fit.slope * (times[-1] - times[0])
    return Trend(fit.slope, fit.slope - half, fit.slope + half, growth, tuple(y))
