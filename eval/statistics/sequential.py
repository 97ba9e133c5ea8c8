"""A paired test that may be looked at after every episode: two conditions on the same seeds.

With d = +1 where B alone succeeds, -1 where A alone does and 0 where both did the same, one bets a
share lambda of a fortune of 1 on B at each pair:

    E_n(B) = mean over lambda in {.1, .2, ..., .9} of  prod_i (1 + lambda d_i)

While A and B are equally good, d is a fair coin and the fortune's expectation stays 1, so the
chance that it EVER reaches 1 / alpha is at most alpha (Ville): stopping as soon as it does is
valid, for any rule of when to look. The two-sided value is the mean of E(B) and of E(A), which
bets on A. Only discordant pairs move it, and their order does not matter.

The smallest stake of .1 is also its limit: of discordant pairs that split less unevenly than 52.5
to 47.5 it never becomes sure.
"""

import math
import sys
from typing import Literal

import numpy as np

_STAKES = np.arange(1, 10) / 10
_LOG_WON, _LOG_LOST = np.log1p(_STAKES), np.log1p(-_STAKES)


def log_one_sided(won: int | np.ndarray, lost: int | np.ndarray) -> np.ndarray:
    """log E (...) of betting on one condition that alone succeeded `won` (...) times and alone
    failed `lost` (...) times."""
    fortunes = np.multiply.outer(won, _LOG_WON) + np.multiply.outer(lost, _LOG_LOST)
    return np.logaddexp.reduce(fortunes, axis=-1) - math.log(len(_STAKES))


def log_two_sided(only_a: int | np.ndarray, only_b: int | np.ndarray) -> np.ndarray:
    """log of the mean of both one-sided values (...); counts (...) of discordant pairs."""
    return np.logaddexp(log_one_sided(only_b, only_a), log_one_sided(only_a, only_b)) - math.log(2)


class PairedEProcess:
    """Evidence that A and B differ, pair by pair. Give it each seed's two outcomes once."""

    def __init__(self) -> None:
        self.pairs = 0
        self.only_a = 0
        self.only_b = 0
        self._highest_log = 0.0

    def update(self, a_success: bool, b_success: bool) -> None:
        """Take in the outcomes of one more seed."""
        self.pairs += 1
        if a_success == b_success:
            return
        if b_success:
            self.only_b += 1
        else:
            self.only_a += 1
        self._highest_log = max(self._highest_log, self.log_e_value)

    @property
    def log_e_value(self) -> float:
        """Natural logarithm of the two-sided value; 0 at the start."""
        return float(log_two_sided(self.only_a, self.only_b))

    @property
    def e_value(self) -> float:
        """The two-sided value now: 1 at the start, as rare as p = 0.05 at 20. At most the largest
        float, so that it can be stored."""
        return _bounded_exp(self.log_e_value)

    @property
    def e_peak(self) -> float:
        """The highest it has been; its chance of ever reaching 1 / alpha is what is bounded."""
        return _bounded_exp(self._highest_log)

    @property
    def direction(self) -> Literal["a", "b"] | None:
        """Which one is ahead, None when neither is."""
        if self.only_a == self.only_b:
            return None
        return "b" if self.only_b > self.only_a else "a"

    def rejects(self, alpha: float = 0.05, comparisons: int = 1) -> bool:
        """Whether A and B were shown to differ, by now or at an earlier look: the value has been
        at least comparisons / alpha, which is Bonferroni's correction over `comparisons`."""
        return self._highest_log >= math.log(comparisons / alpha)


def _bounded_exp(value: float) -> float:
    return math.exp(min(value, math.log(sys.float_info.max)))
