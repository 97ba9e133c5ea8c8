"""The last few observations in one, for a policy with history: what a robot keeps between chunks.

    history = ObservationHistory(policy.spec.history)  # 1 where the policy has none
    at every control step:           history.add(observe())
    whenever a chunk is wanted:      policy.infer(history.stacked())
    at the start of an episode:      history.reset()

Each tensor of the result has a leading axis O, oldest first; until O steps have been observed the
first one is repeated, as in training. Feed it every control step, also while a chunk is played: a
policy has learned from observations that are one control period apart. Numpy only.
"""

from collections import deque
from collections.abc import Sequence

import numpy as np

from loopdit.datasets.spec import Observation


class ObservationHistory:
    """The last `steps` observations. With 1, `stacked` is the latest one as it was given."""

    def __init__(self, steps: int) -> None:
        if steps < 1:
            raise ValueError(f"steps={steps} must be at least 1.")
        self._steps = steps
        self._kept: deque[Observation] = deque(maxlen=steps)

    def reset(self) -> None:
        """Forget them all: another episode begins."""
        self._kept.clear()

    def add(self, observation: Observation) -> None:
        """Take in what is observed at this control step."""
        if self._steps > 1:  # copied: a camera may write its next frame into the same memory
            observation = {name: np.array(value) for name, value in observation.items()}
        self._kept.append(observation)

    def stacked(self) -> Observation:
        """Each tensor (O, ...), oldest first. Raises ValueError before the first `add`."""
        if not self._kept:
            raise ValueError("there is nothing observed yet: add an observation first.")
        return stacked([self._kept[0]] * (self._steps - len(self._kept)) + [*self._kept])


def stacked(rows: Sequence[Observation]) -> Observation:
    """Observations, oldest first, as one: each tensor (O, ...). A single one is as it was given."""
    if len(rows) == 1:
        return rows[0]
    # A camera that was missing in one of them is missing in all: a policy masks it as a whole.
    there = [name for name in rows[-1] if all(name in row for row in rows)]
    return {name: np.stack([row[name] for row in rows]) for name in there}
