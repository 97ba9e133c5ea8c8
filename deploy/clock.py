"""Time as an argument: what decides takes a Clock, and only a program's shell makes a real one."""

import time
from typing import Protocol


class Clock(Protocol):
    """Monotonic seconds from an arbitrary zero."""

    @property
    def now(self) -> float:
        """The present time."""
        ...


class MonotonicClock:
    """The machine's own."""

    @property
    def now(self) -> float:
        """Seconds; unaffected by changes of the wall clock."""
        return time.monotonic()
