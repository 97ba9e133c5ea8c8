"""When a training ends because what is held out gets no better.

The error that counts is that of the deepest K. Knows what metrics.jsonl says of validations, and no
model.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


def held_out_error(validation: Mapping[str, Any]) -> float:
    """Of the deepest K."""
    errors: Mapping[str, float] = validation["action_error"]
    return errors[max(errors, key=int)]


@dataclass
class Patience:
    """How many validations have been waited for a smaller error than `best`: `most` at most, any
    number where that is 0."""

    most: int
    best: float = math.inf
    step: int = 0
    waited: int = 0

    def take_up(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """What the validations before were, of a training that goes on."""
        for row in rows:
            if "validation" in row:
                self.improved(row["step"], row["validation"])

    def improved(self, step: int, validation: Mapping[str, Any]) -> bool:
        """Whether this one is the best so far."""
        error = held_out_error(validation)
        if error < self.best:
            self.best, self.step, self.waited = error, step, 0
            return True
        self.waited += 1
        return False

    @property
    def over(self) -> bool:
        """Whether the training is to end."""
        return 0 < self.most <= self.waited
