"""Whether an observation is beyond doubt one that a spec takes, in microseconds.

`PolicySpec.check_observation` says what is wrong, and is asked only where this finds no clean pass:
between them nothing is let through that the spec refuses.
"""

import math

import numpy as np

from loopdit.datasets.spec import COMMITTED, Observation, PolicySpec

_FEW = 64


class QuickCheck:
    """See the module."""

    def __init__(self, spec: PolicySpec) -> None:
        self._wanted = {t.name: (t.shape, np.dtype(t.dtype)) for t in spec.observations}
        self._clear = COMMITTED not in self._wanted  # whose last column has a form besides

    def passes(self, observation: Observation) -> bool:
        """False also for much that is right, such as an observation without an optional camera."""
        wanted = self._wanted
        if not self._clear or len(observation) != len(wanted):
            return False
        for name, value in observation.items():
            expected = wanted.get(name)
            if (
                expected is None
                or type(value) is not np.ndarray
                or value.shape != expected[0]
                or value.dtype != expected[1]
            ):
                return False
            if expected[1].kind == "f" and not _all_finite(value):
                return False
        return True


def _all_finite(values: np.ndarray) -> bool:
    """Of few numbers their sum says so, in a third of the time: one that is not finite makes it so,
    and a sum that overflows is looked at closely by the spec."""
    if values.size <= _FEW:
        return math.isfinite(sum(values.ravel().tolist()))
    return bool(np.isfinite(values).all())
