"""The chunk under way plays until the next one takes over, which was told what plays meanwhile.

A pure state machine over counted steps, see `chunk_execution`.

Shapes: H action horizon, A action dim, n actions in flight.
"""

from collections import deque

import numpy as np

from loopdit.deploy.robot.chunk_execution import NOTHING, require_actions
from loopdit.deploy.robot.guide import guide_for

# Chunks whose delays say how late the next one may be, by the largest (arXiv 2506.07339). A window,
# so that one slow chunk, such as the first one, is forgotten.
_DELAYS = 10


class Informed:
    """Plays the chunk under way until the next one takes over, which was told what that has played.

    committed: how many actions the policy can be told of. As many are committed as the longest of
    the last few delays, and so much earlier than it is to take over the next chunk is asked for.
    A chunk begins with the first of its actions that is not done yet: done are those that the
    policy was told of, and more of the chunk before where it comes later than that. Steps at which
    nothing was played, such as those before the first chunk, leave out nothing: the robot stood
    still.

    guides: the policy is not told but pulled towards what is planned. With neither, what was played
    meanwhile is left out of a chunk all the same.
    """

    def __init__(self, execute_horizon: int, committed: int = 0, guides: bool = False) -> None:
        self._execute_horizon = execute_horizon
        self._most_committed = committed
        self._guides = guides
        self.reset()

    def wants_chunk(self, step: int) -> bool:
        """At first, and when a chunk asked for now can just be there in time."""
        return self._plan is None or step >= self._takes_over - self._expected

    def committed(self, step: int) -> np.ndarray:
        """(n, A), the next actions of what plays now."""
        return self._from(step)[: min(self._expected, self._most_committed)]

    def guide(self, step: int) -> np.ndarray:
        """All that is planned, which counts fully until a chunk asked for now can be there."""
        planned = self._from(step)
        return guide_for(planned, self._expected) if self._guides and len(planned) else NOTHING

    def requested(self, step: int) -> None:
        """Those actions will be played whatever comes."""
        self._told = len(self.committed(step))

    def load(self, actions: np.ndarray, observed_step: int, step: int) -> None:
        """Put the chunk behind what is committed, or behind what was played where that is more."""
        require_actions(actions)
        self._delays.append(step - observed_step)
        begins = max(step, observed_step + self._told)
        before = self._from(observed_step)[: begins - observed_step]  # what plays until then
        new = actions[len(before) :]
        still = before[step - observed_step :]
        self._plan = np.concatenate([still, new]) if len(still) else new
        self._first_step = step
        self._takes_over = begins + min(self._execute_horizon, len(new))

    def action(self, step: int) -> np.ndarray | None:
        """(A,), or None before the first chunk and beyond the end."""
        now = self._from(step)
        return now[0] if len(now) else None

    def executed(self, step: int, action: np.ndarray) -> None:
        """Nothing depends on it."""

    def reset(self) -> None:
        """Forget the chunk, and how late chunks are."""
        self._delays: deque[int] = deque(maxlen=_DELAYS)
        self._plan: np.ndarray | None = None  # (N, A), its first action for _first_step
        self._first_step = 0
        self._takes_over = 0  # the step at which the next chunk should
        self._told = 0

    @property
    def _expected(self) -> int:
        """How many steps a chunk asked for now may take."""
        return max(self._delays, default=0)

    def _from(self, step: int) -> np.ndarray:
        """(n, A), the actions of `step` and after, as far as they are planned."""
        return NOTHING if self._plan is None else self._plan[max(0, step - self._first_step) :]
