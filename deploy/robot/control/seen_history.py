"""What a policy with history is given in control mode: observations a control period of it apart.

A robot observes when it likes, at steps of the control loop; a policy has learned from observations
that are one period of its own apart. Steps are counted as in `controller`.
"""

from collections import deque
from dataclasses import dataclass

from loopdit.datasets.spec import Observation


@dataclass(frozen=True)
class Seen:
    """An observation, and the control step that it belongs to: how many actions had been carried
    out when it was made."""

    observation: Observation
    step: int
    instruction: str = ""
    episode: int = 0


class SeenHistory:
    """The last observations of one episode. `parts`: control steps in a period of the policy, which
    is given `count` observations."""

    def __init__(self, count: int, parts: int) -> None:
        self._count = count
        self._parts = parts
        self._kept: deque[Seen] = deque()  # one of each step, oldest first

    def reset(self) -> None:
        """Forget them all: another episode begins, or the robot was moved by hand."""
        self._kept.clear()

    def add(self, seen: Seen) -> None:
        """Take in the newest observation. A later one of the same step takes its place."""
        while self._kept and self._kept[-1].step >= seen.step:
            self._kept.pop()
        self._kept.append(seen)
        oldest = seen.step - (self._count - 1) * self._parts
        while len(self._kept) > 1 and self._kept[1].step <= oldest:
            self._kept.popleft()

    def rows(self) -> tuple[Observation, ...]:
        """The O observations for the newest, oldest first, one period after the other: what was
        seen last by then, and before the first one that one. Call `add` first."""
        newest = self._kept[-1].step
        found: list[Observation] = []
        for back in reversed(range(self._count)):
            due = newest - back * self._parts
            there = [seen for seen in self._kept if seen.step <= due]
            found.append((there[-1] if there else self._kept[0]).observation)
        return tuple(found)
