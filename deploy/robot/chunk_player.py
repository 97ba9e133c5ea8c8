"""Plays action chunks at the control period: which action is due now.

A pure state machine over a clock that is passed in. Action i of a chunk is due i control periods
after its observation was made, so a chunk that arrives late starts at the action whose time it is.
When the chunk has run out, the last action is held and counted: never "no command".

A policy that knows what is in flight is told what the method `committed` returns when it is asked:
`deploy/robot/committed.py` shows the whole call.

Shapes: H action horizon, A action dim.
"""

import math

import numpy as np

from loopdit.deploy.clock import Clock

# Time stamps are sums of floats: an action due at 0.06 s must be due at 3 * 0.02 s as well.
_TOLERANCE = 1e-6


class ChunkPlayer:
    """Holds the newest chunk. `held` counts calls past its end, `skipped` actions never played.

    informed: the policy is told what is in flight, and nothing was before the first chunk: that one
    begins when it comes, because the robot stood still while it was made.
    """

    def __init__(self, control_period: float, clock: Clock, informed: bool = False) -> None:
        self._control_period = control_period
        self._informed = informed
        self._clock = clock
        self._actions: np.ndarray | None = None
        self._observed_at = -math.inf
        self._next = 0
        self.held = 0
        self.skipped = 0

    @property
    def ready(self) -> bool:
        """Whether there is a chunk to play."""
        return self._actions is not None

    @property
    def remaining(self) -> int:
        """Actions of the chunk that are due now or later."""
        return 0 if self._actions is None else max(0, len(self._actions) - self._due())

    def load(self, actions: np.ndarray, observed_at: float) -> None:
        """Take over from the present chunk: actions (H, A), H >= 1, first due at `observed_at`.

        A chunk from an older observation than the present one is ignored.
        """
        if len(actions) == 0:
            raise ValueError("a chunk needs at least one action.")
        if observed_at < self._observed_at:
            return
        if self._informed and self._actions is None:
            observed_at = self._clock.now
        self._actions, self._observed_at, self._next = actions, observed_at, 0

    def committed(self, expected_delay_s: float, most: int) -> np.ndarray:
        """The actions (n, A), n <= `most`, from the one due now on, that will be played before a
        chunk can be there which is asked for now and takes `expected_delay_s`.

        Expect the longest of the last few delays. One that comes earlier changes nothing; of one
        that comes later the actions whose time has passed are skipped.
        """
        if self._actions is None:
            return np.empty((0, 0), np.float32)
        count = math.ceil(expected_delay_s / self._control_period - _TOLERANCE)
        return self._actions[self._due() :][: max(0, min(count, most))]

    def action(self) -> np.ndarray:
        """The action (A,) due now; the last one when all have had their time.

        Raises RuntimeError before the first chunk.
        """
        if self._actions is None:
            raise RuntimeError("no chunk is loaded yet: check `ready` first.")
        due, horizon = self._due(), len(self._actions)
        self.skipped += max(0, min(due, horizon) - self._next)
        self._next = max(self._next, min(due, horizon - 1) + 1)
        if due >= horizon:
            self.held += 1
        return self._actions[min(due, horizon - 1)]

    def reset(self) -> None:
        """Forget the chunk (a new episode begins); the counters stay."""
        self._actions, self._observed_at, self._next = None, -math.inf, 0

    def _due(self) -> int:
        periods = (self._clock.now - self._observed_at) / self._control_period
        return max(0, math.floor(periods + _TOLERANCE))
