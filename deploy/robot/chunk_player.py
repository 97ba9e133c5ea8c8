"""Plays action chunks at the control period: which action is due now.

A pure state machine over a clock that is passed in. Action i of a chunk is due i control periods
after its observation was made, so a chunk that arrives late starts at the action whose time it is.
When the chunk has run out, the last action is held and counted: never "no command".

Where actions are shifts of the commanded pose, say so by giving the spec's `action`: a chunk then
tells where to be at each period, and what is played is the shift from where the command is (see
`tracked_execution`, which does in steps what this does in seconds). Without, a late chunk loses
the motion that it skips.

A policy that knows what is in flight is told what the method `committed` returns when it is asked:
`deploy/robot/committed.py` shows the whole call.

Shapes: H action horizon, A action dim.
"""

import math
from collections import deque

import numpy as np

from loopdit.datasets.tensor_spec import TensorSpec
from loopdit.deploy.clock import Clock
from loopdit.deploy.robot.commanded_pose import Shifts

# Time stamps are sums of floats: an action due at 0.06 s must be due at 3 * 0.02 s as well.
_TOLERANCE = 1e-6
# Periods that an observation may be old when its chunk comes.
_REMEMBERED = 1024


class ChunkPlayer:
    """Holds the newest chunk. `held` counts calls past its end, `skipped` actions never played.

    informed: the policy is told what is in flight, and nothing was before the first chunk: that one
    begins when it comes, because the robot stood still while it was made. action: what an action
    is, to play chunks of shifts by the poses that they lead to; it needs `action()` to be called
    once a period, and what it returns to be executed.
    """

    def __init__(
        self,
        control_period: float,
        clock: Clock,
        informed: bool = False,
        action: TensorSpec | None = None,
    ) -> None:
        self._control_period = control_period
        self._clock = clock
        self._tracker = None if action is None else _Tracker(action, clock)
        self._begins_late = informed or self._tracker is not None
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
        if self._tracker is not None:
            actions = self._tracker.poses(actions, observed_at)
        if self._begins_late and self._actions is None:
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
        planned = self._actions[self._due() :][: max(0, min(count, most))]
        return planned if self._tracker is None else self._tracker.actions(planned)

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
        wanted = self._actions[min(due, horizon - 1)]
        return wanted if self._tracker is None else self._tracker.moved_to(wanted)

    def reset(self) -> None:
        """Forget the chunk (a new episode begins); the counters stay."""
        self._actions, self._observed_at, self._next = None, -math.inf, 0
        if self._tracker is not None:
            self._tracker.reset()

    def _due(self) -> int:
        periods = (self._clock.now - self._observed_at) / self._control_period
        return max(0, math.floor(periods + _TOLERANCE))


class _Tracker:
    """Where the command is, and was. Poses as in `commanded_pose`."""

    def __init__(self, action: TensorSpec, clock: Clock) -> None:
        self._shifts = Shifts(action.labels)
        self._low = np.array(action.low or -np.inf, np.float32)
        self._high = np.array(action.high or np.inf, np.float32)
        self._clock = clock
        self.reset()

    def poses(self, actions: np.ndarray, observed_at: float) -> np.ndarray:
        """Where actions (H, A), planned from what was observed then, lead: (H, A + 9)."""
        # An action that was commanded at the moment of the observation is not in it yet.
        before = [pose for at, pose in self._history if at >= observed_at - _TOLERANCE]
        return self._shifts.poses(before[0] if before else self._pose, actions)

    def actions(self, poses: np.ndarray) -> np.ndarray:
        """The shifts (n, A) from here through poses."""
        return self._shifts.actions(self._pose, poses)

    def moved_to(self, wanted: np.ndarray) -> np.ndarray:
        """The action (A,) float32 towards a pose, within the limits, which is executed now."""
        action = np.clip(self._shifts.action(self._pose, wanted), self._low, self._high)
        self._history.append((self._clock.now, self._pose))
        self._pose = self._shifts.poses(self._pose, action[None])[0]
        return action

    def reset(self) -> None:
        """Forget where it was."""
        self._pose = self._shifts.start()
        # The pose before each action, and when that was commanded.
        self._history: deque[tuple[float, np.ndarray]] = deque(maxlen=_REMEMBERED)
