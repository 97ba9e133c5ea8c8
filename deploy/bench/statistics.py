"""What is said of timed samples: percentiles, and the line of cost against loops.

Shapes: R rounds, V samples of a visit. A round visits every arm once, so what disturbed it
disturbed all of them: it is drawn whole, and the same rounds for every K, when an interval is
bootstrapped. No sample is removed. Pure: knows no clock and no back end.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

_DRAWS = 1000
_TAILS = (2.5, 97.5)  # of a 95 % interval


def summary(times_ms: np.ndarray) -> dict[str, Any]:
    """Percentiles of times (R, V, 4): encode, denoise, chunk, and the chunk's time on a core, in
    milliseconds; None where a part was not timed."""
    encode, denoise, chunk, cpu = times_ms.reshape(-1, 4).T
    found: dict[str, Any] = {}
    for prefix, samples in (("", chunk), ("encode_", encode), ("denoise_", denoise)):
        p50, p90, p99 = np.percentile(samples, (50, 90, 99))
        found |= {
            f"{prefix}p50_ms": milliseconds(p50),
            f"{prefix}p90_ms": milliseconds(p90),
            f"{prefix}p99_ms": milliseconds(p99),
            f"{prefix}min_ms": milliseconds(samples.min()),
            f"{prefix}max_ms": milliseconds(samples.max()),
        }
    return found | {"cpu_p50_ms": milliseconds(np.median(cpu)), "repetitions": len(chunk)}


def milliseconds(value: Any) -> float | None:
    """Rounded to a tenth of a microsecond; None for not a number, which JSON has not."""
    return None if np.isnan(value) else round(float(value), 4)


@dataclass(frozen=True)
class Interval:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class LoopCost:
    """p50 of a chunk as a line over K: `intercept_ms` + K * `slope_ms`, by least squares.

    ratio: p50 at the deepest K over p50 at the shallowest. residual_ms: the furthest a p50 is from
    the line, 0 where there are two K.
    """

    slope_ms: Interval
    intercept_ms: Interval
    ratio: Interval
    residual_ms: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def loop_cost(chunk_ms: Mapping[int, np.ndarray], seed: int) -> LoopCost | None:
    """The line through the p50 of each K's samples (R, V), the same rounds for all; None for fewer
    than two K. Intervals: 1000 bootstraps of rounds."""
    if len(chunk_ms) < 2:
        return None
    loops = np.array(sorted(chunk_ms))
    samples = np.stack([chunk_ms[int(k)] for k in loops])  # (K, R, V)
    rounds = samples.shape[1]
    drawn = np.random.default_rng(seed).integers(0, rounds, (_DRAWS, rounds))
    middles = np.stack(
        [np.median(of[drawn].reshape(_DRAWS, -1), axis=1) for of in samples], axis=1
    )  # (draws, K)
    found = np.median(samples.reshape(len(loops), -1), axis=1)
    slope, intercept = np.polyfit(loops, found, 1)
    slopes, intercepts = np.polyfit(loops, middles.T, 1)
    residual = np.abs(found - (intercept + slope * loops)).max()
    return LoopCost(
        _interval(slope, slopes),
        _interval(intercept, intercepts),
        _interval(found[-1] / found[0], middles[:, -1] / middles[:, 0]),
        round(float(residual), 4),
    )


def _interval(value: Any, draws: np.ndarray) -> Interval:
    low, high = np.percentile(draws, _TAILS)
    return Interval(round(float(value), 4), round(float(low), 4), round(float(high), 4))


def paired_ratio(over_ms: np.ndarray, under_ms: np.ndarray, seed: int) -> Interval:
    """p50 over p50 of two arms (R, V) that took turns; 1000 bootstraps of the rounds they share."""
    rounds = len(over_ms)
    drawn = np.random.default_rng(seed).integers(0, rounds, (_DRAWS, rounds))

    def middles(samples: np.ndarray) -> np.ndarray:
        return np.median(samples[drawn].reshape(_DRAWS, -1), axis=1)

    value = np.median(over_ms) / np.median(under_ms)
    return _interval(value, middles(over_ms) / middles(under_ms))
