"""When episodes=auto may stop: each condition compared with the first one, seed by seed.

Outcomes may arrive in any order; they count in the order of the seeds, so that the run stops at
the same one whatever finished first. It stops at the first seed at which every comparison is
decided, by a test that may be looked at after each (`sequential`), or after the last seed. A pair
without two verdicts (broken physics, an exception) says nothing and is left out.
"""

from collections.abc import Sequence

from loopdit.errors import ConfigError
from loopdit.eval.rollouts.condition import Condition
from loopdit.eval.rollouts.rollout import FAILURE, SUCCESS
from loopdit.eval.statistics.comparison import ALPHA
from loopdit.eval.statistics.sequential import PairedEProcess


def require_comparable(conditions: Sequence[Condition]) -> None:
    """Raise ConfigError where there is nothing to tell apart."""
    if len(conditions) < 2:
        raise ConfigError(
            "episodes=auto stops when conditions are told apart, and this is only one. Give a list "
            "of two or more, such as loops=[1,4], or a number of episodes: an interval looked at "
            "until it is narrow enough would be too narrow."
        )


class SequentialStop:
    """`stop_seed` is the last seed that counts, None until it is known."""

    def __init__(self, conditions: Sequence[Condition], first_seed: int, episodes: int) -> None:
        """The first of at least two `conditions` is what the others are compared with."""
        self._conditions = tuple(conditions)
        self._evidence = [PairedEProcess() for _ in conditions[1:]]
        self._outcomes: dict[int, dict[Condition, str]] = {}
        self._next_seed = first_seed
        self._last_seed = first_seed + episodes - 1
        self.stop_seed: int | None = None

    def add(self, condition: Condition, seed: int, outcome: str) -> None:
        """One rollout ended; what is beyond the stop is of no account."""
        self._outcomes.setdefault(seed, {})[condition] = outcome
        while self.stop_seed is None and self._complete(self._next_seed):
            self._take(self._outcomes.pop(self._next_seed))
            if self.decided == len(self._evidence) or self._next_seed == self._last_seed:
                self.stop_seed = self._next_seed
            self._next_seed += 1

    @property
    def decided(self) -> int:
        """How many comparisons have shown a difference."""
        return sum(e.rejects(ALPHA, len(self._evidence)) for e in self._evidence)

    @property
    def comparisons(self) -> int:
        """How many there are."""
        return len(self._evidence)

    def _complete(self, seed: int) -> bool:
        return len(self._outcomes.get(seed, ())) == len(self._conditions)

    def _take(self, outcomes: dict[Condition, str]) -> None:
        first = outcomes[self._conditions[0]]
        for evidence, condition in zip(self._evidence, self._conditions[1:], strict=True):
            other = outcomes[condition]
            if {first, other} <= {SUCCESS, FAILURE}:
                evidence.update(first == SUCCESS, other == SUCCESS)
