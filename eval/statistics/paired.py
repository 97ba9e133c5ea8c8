"""Two conditions on the same seeds: is one better than the other, and by how much.

A pair is one seed with the outcome of A and of B. Pairs in which both did the same say nothing
about which is better; McNemar's exact test asks whether the others, the discordant ones, split
more unevenly than a fair coin would. The bootstrap draws whole pairs, so that a hard seed stays
hard for both. Neither knows of seeds: the arrays are in the same order.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr

_BLOCK = 500

Values = Sequence[bool] | Sequence[float] | np.ndarray


@dataclass(frozen=True)
class Difference:
    """Mean of B minus mean of A with the bounds of its interval, in the metric's own unit."""

    value: float
    low: float
    high: float


def discordant(a: Values, b: Values) -> tuple[int, int]:
    """Pairs in which A alone succeeded, and in which B alone did. Raises ValueError for arrays of
    different length."""
    first, second = _same_length(a, b, bool)
    return int(np.sum(first & ~second)), int(np.sum(second & ~first))


def mcnemar_exact(a: Values, b: Values) -> float:
    """Two-sided p value of "A and B succeed equally often"; 1 without a discordant pair.

    It holds for a number of pairs that was fixed beforehand; whoever looks in between needs
    `sequential.PairedEProcess`. Raises ValueError for arrays of different length.
    """
    return mcnemar_p_value(*discordant(a, b))


def mcnemar_p_value(only_a: int, only_b: int) -> float:
    """The same from the counts of discordant pairs: min(1, 2 P(X <= the fewer)), X ~ Bin(n, 1/2)"""
    return min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def paired_bootstrap(
    a: Values, b: Values, seed: int = 0, resamples: int = 10_000, level: float = 0.95
) -> Difference:
    """Mean of B - A and its percentile interval; same arguments, same interval.

    Of outcomes it holds the truth in 94 of 100 runs with 50 pairs or more, in 91 with 20 or close
    to 100 %. The order of the pairs does not matter. Where all differ by the same amount there is
    nothing to draw and the interval has no width, however few they are. Raises ValueError for
    arrays that are empty, not finite, or of different length.
    """
    first, second = _same_length(a, b, float)
    differences, rng = second - first, np.random.default_rng(seed)
    pairs = len(differences)
    if not pairs or not np.isfinite(differences).all():
        raise ValueError("a bootstrap needs at least one pair, and finite values alone.")
    differences.sort()
    drawn = np.concatenate(
        [
            differences[rng.integers(pairs, size=(count, pairs))].mean(axis=1)
            for count in _blocks(resamples)
        ]
    )
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Difference(float(differences.mean()), float(low), float(high))


def _blocks(resamples: int) -> list[int]:
    """Resamples that are drawn at once: all of them with thousands of pairs need a gigabyte."""
    return [min(_BLOCK, resamples - start) for start in range(0, resamples, _BLOCK)]


def _same_length(a: Values, b: Values, kind: type) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.asarray(a, dtype=kind), np.asarray(b, dtype=kind)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"pairs need two lists of one length, not {first.shape}, {second.shape}.")
    return first, second
