"""Printed numbers were rounded: what a quantity made of them can have been at all.

"0.121" stands for anything from 0.1205 to 0.1215. A number that the paper derives disagrees with
those it prints only if no values within their rounding give it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

_ROUNDS = 8
_SLACK = 1e-9  # of binary fractions: 0.0725 is 0.07249999


@dataclass(frozen=True)
class Printed:
    """A number as it is printed, and half of its last digit's unit."""

    text: str
    value: float
    half: float

    @classmethod
    def of(cls, text: str, unit: float = 1.0) -> "Printed":
        """From text such as "0.121", "350" or "-1.0", counted in `unit`."""
        decimals = len(text.partition(".")[2])
        return cls(text, unit * float(text), unit * 0.5 * 10.0**-decimals)

    def may_be(self, low: float, high: float) -> bool:
        """Whether some number from `low` to `high` is printed so."""
        slack = _SLACK * max(1.0, abs(self.value))
        return low - slack <= self.value + self.half and high + slack >= self.value - self.half


@dataclass(frozen=True)
class Reach:
    """A function of printed numbers: its value at what is printed, and the least and the largest
    that it takes within their rounding."""

    value: float
    low: float
    high: float


def reach(function: Callable[[np.ndarray], float], inputs: Sequence[Printed]) -> Reach:
    """`function` takes all inputs (n,) at once.

    Bounds are sought at corners, each the one that the slopes at the last point to: exact where
    the function rises or falls in each input throughout its rounding, which is small.
    """
    center = np.array([number.value for number in inputs])
    halves = np.array([number.half for number in inputs])
    value = float(function(center))

    def extreme(sign: int) -> float:
        at, best = center, value
        for _ in range(_ROUNDS):
            corner = center + halves * np.sign(sign * _slopes(function, at, halves))
            found = float(function(corner))
            if sign * found <= sign * best:
                break
            at, best = corner, found
        return best

    return Reach(value, extreme(-1), extreme(1))


def _slopes(
    function: Callable[[np.ndarray], float], at: np.ndarray, halves: np.ndarray
) -> np.ndarray:
    slopes = np.zeros(len(at))
    for place, half in enumerate(halves):
        step = np.zeros(len(at))
        step[place] = half / 4
        slopes[place] = function(at + step) - function(at - step)
    return slopes
