"""What STATUS says of the last second: counters, and percentiles of what took time."""

import numpy as np

from loopdit.deploy.robot.control.messages import Percentiles


class Timings:
    """Seconds, since they were last taken."""

    def __init__(self) -> None:
        self._seconds: list[float] = []

    def add(self, seconds: float) -> None:
        """One more."""
        self._seconds.append(seconds)

    def taken(self) -> Percentiles:
        """Those added since the last call, in microseconds; zeros where there are none."""
        if not self._seconds:
            return Percentiles()
        values = np.percentile(np.maximum(self._seconds, 0.0) * 1e6, [50, 99, 100])
        self._seconds = []
        return Percentiles(*(int(value) for value in values))
