"""How many paired episodes show that one condition is better than another.

Of n pairs a share is discordant, and of those a share favours B; both follow from the success
rates of A and B and from how alike their outcomes are on one seed. So whatever the test, with
D ~ Bin(n, discordant share) discordant pairs,

    power(n) = sum over D of  P(D) * found[D]

`found` (most + 1,) is the chance that the test shows B to be better when D pairs are discordant:
for McNemar's exact test a binomial tail, for the e-process, which is looked at after every pair,
the chance that a random walk has crossed its boundary. All of it is computed, nothing simulated.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from scipy.special import bdtr, gammaln, xlog1py, xlogy

from loopdit.eval.statistics.sequential import log_two_sided

Found = Callable[[int, float, float], np.ndarray]  # (most discordant, share of B, alpha)
_GRID = 400  # numbers of episodes between which power is interpolated, for an expectation


@dataclass(frozen=True)
class Pairs:
    """Probabilities of a pair in which A alone, and in which B alone, succeeds."""

    only_a: float
    only_b: float

    @property
    def discordant(self) -> float:
        """Share of all pairs that tell A and B apart."""
        return self.only_a + self.only_b

    @property
    def share_b(self) -> float:
        """Share of the discordant pairs that favour B; one half when there are none."""
        return self.only_b / self.discordant if self.discordant else 0.5


def pairs_of(rate_a: float, rate_b: float, rho: float = 0.0) -> Pairs:
    """Pairs of two success rates whose outcomes on one seed have the correlation `rho`.

    Two unequal rates cannot be wholly alike: beyond `correlation_limits` it is the limit.
    """
    low, high = correlation_limits(rate_a, rate_b)
    together = min(max(rho, low), high) * _deviation(rate_a, rate_b)
    return Pairs(
        max(0.0, rate_a * (1 - rate_b) - together), max(0.0, rate_b * (1 - rate_a) - together)
    )


def correlation_limits(rate_a: float, rate_b: float) -> tuple[float, float]:
    """Least and greatest correlation that outcomes of these two rates can have on one seed."""
    deviation = _deviation(rate_a, rate_b)
    if not deviation:
        return 0.0, 0.0
    apart = min(rate_a * rate_b, (1 - rate_a) * (1 - rate_b))
    alike = min(rate_a, rate_b) - rate_a * rate_b
    return -apart / deviation, alike / deviation


def found_by_mcnemar(most: int, share_b: float, alpha: float) -> np.ndarray:
    """(most + 1,): chance that the exact two-sided test at `alpha` shows B better, by D."""
    totals = np.arange(most + 1)
    losses = _most_losses(lambda lost, all_: 2 * bdtr(lost, all_, 0.5) <= alpha, most)
    # Probabilities of B's losses: those that alone succeeded are A's.
    return np.where(losses < 0, 0.0, bdtr(np.maximum(losses, 0), totals, 1 - share_b))


def found_by_e_process(most: int, share_b: float, alpha: float) -> np.ndarray:
    """(most + 1,): chance that the e-process has shown B better by the D-th discordant pair."""
    threshold = -math.log(alpha)
    losses = _most_losses(lambda lost, all_: log_two_sided(lost, all_ - lost) >= threshold, most)
    found = np.zeros(most + 1)
    running = np.zeros(most + 2)  # by B's losses so far: walks that have crossed no boundary
    running[0] = 1
    for total in range(1, most + 1):
        low = losses[total - 1] + 1
        alive = running[low : total + 1 - low]  # the last of them is yet to be reached
        alive[1:] = alive[1:] * share_b + alive[:-1] * (1 - share_b)
        alive[0] *= share_b
        boundary = losses[total] + 1
        found[total] = found[total - 1] + running[low:boundary].sum()
        running[:boundary] = 0
        running[total + 1 - boundary : total + 1] = 0  # A was shown better
    return found


def power_of(episodes: int, pairs: Pairs, found: np.ndarray) -> float:
    """Chance that `episodes` pairs show B better; `found` reaches to at least `episodes`."""
    counts = np.arange(episodes + 1)
    ways = gammaln(episodes + 1) - gammaln(counts + 1) - gammaln(episodes - counts + 1)
    share = pairs.discordant
    chance = np.exp(ways + xlogy(counts, share) + xlog1py(episodes - counts, -share))
    return float(chance @ found[: episodes + 1])


def episodes_needed(pairs: Pairs, found: np.ndarray, power: float) -> int | None:
    """The fewest pairs that show B better with chance `power`, None if all of `found` do not.

    An exact test's power has small teeth as a function of the number; this is within them.
    """
    few, many = 0, len(found) - 1
    if power_of(many, pairs, found) < power:
        return None
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if power_of(middle, pairs, found) >= power else (middle, many)
    return many


def expected_episodes(pairs: Pairs, found: np.ndarray, limit: int) -> float:
    """Mean number of pairs until a test that is looked at after each one has shown B better, or
    until `limit`: the sum over n < limit of the chance that n pairs did not."""
    grid = np.unique(np.linspace(0, limit, _GRID).astype(int))
    power = [power_of(int(episodes), pairs, found) for episodes in grid]
    return float(np.sum(1 - np.interp(np.arange(limit), grid, power)))


def unpaired_episodes(rate_a: float, rate_b: float, power: float, alpha: float) -> int:
    """Episodes of EACH condition, on different seeds, for the two-sided z test of two rates:

        n = (z_{alpha/2} sqrt(2 m (1 - m)) + z_power sqrt(a (1 - a) + b (1 - b)))^2 / (a - b)^2

    with m the mean of the rates a and b.
    """
    quantile, mean = NormalDist().inv_cdf, (rate_a + rate_b) / 2
    null = quantile(1 - alpha / 2) * math.sqrt(2 * mean * (1 - mean))
    other = quantile(power) * math.sqrt(rate_a * (1 - rate_a) + rate_b * (1 - rate_b))
    return math.ceil(((null + other) / (rate_a - rate_b)) ** 2)


def detectable_difference(
    episodes: int, rate: float, rho: float, alpha: float, found: Found, power: float = 0.8
) -> float | None:
    """The least distance from `rate` that `episodes` pairs show with chance `power`.

    Up or down, whichever takes more and is possible at all; None when neither is.
    """
    ways = [
        _detectable_rise(episodes, start, rho, alpha, found, power) for start in (rate, 1 - rate)
    ]
    return max((way for way in ways if way is not None), default=None)


def _detectable_rise(
    episodes: int, rate: float, rho: float, alpha: float, found: Found, power: float
) -> float | None:
    def shown(rise: float) -> bool:
        pairs = pairs_of(rate, rate + rise, rho)
        return power_of(episodes, pairs, found(episodes, pairs.share_b, alpha)) >= power

    low, high = 0.0, 1 - rate
    if high <= 0 or not shown(high):
        return None
    while high - low > 0.001:
        middle = (low + high) / 2
        low, high = (low, middle) if shown(middle) else (middle, high)
    return high


def _most_losses(rejects: Callable[[np.ndarray, np.ndarray], np.ndarray], most: int) -> np.ndarray:
    """(most + 1,): the most losses of D pairs, below half, with which B is shown better; -1 where
    not even none suffices. `rejects` (losses, D) is true up to some number of losses."""
    totals = np.arange(most + 1)
    low, high = np.full(most + 1, -1), (totals - 1) // 2
    while np.any(low < high):
        middle = (low + high + 1) // 2
        enough = rejects(middle, totals)
        low, high = np.where(enough, middle, low), np.where(enough, high, middle - 1)
    return low


def _deviation(rate_a: float, rate_b: float) -> float:
    """Product of the standard deviations of the two outcomes."""
    return math.sqrt(rate_a * (1 - rate_a) * rate_b * (1 - rate_b))
