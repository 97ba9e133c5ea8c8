"""Ticks at a fixed rate on an absolute grid: a late tick does not move those after it.

Pure over a clock and a sleep that are passed in.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from loopdit.deploy.clock import Clock

_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Tick:
    """due_s: when it was to begin, on the clock. missed: ticks before it that had no time left."""

    due_s: float
    missed: int


class Pacer:
    """Waits for one tick after the other. One that is a whole period late or more is left out, and
    counted: catching up would command a robot twice in one period."""

    def __init__(self, period_s: float, clock: Clock, sleep: Callable[[float], None]) -> None:
        self._period_s = period_s
        self._clock = clock
        self._sleep = sleep
        self._start_s: float | None = None
        self._count = 0

    def wait(self) -> Tick:
        """Returns at the next tick, or at once where that has passed; the first one is now."""
        if self._start_s is None:
            self._start_s = self._clock.now
        due_s = self._start_s + self._count * self._period_s
        behind = math.floor((self._clock.now - due_s) / self._period_s + _TOLERANCE)
        missed = max(0, behind)
        self._count += missed + 1
        due_s += missed * self._period_s
        while (left_s := due_s - self._clock.now) > 0:
            self._sleep(left_s)
        return Tick(due_s, missed)
