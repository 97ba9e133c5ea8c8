"""Records what a robot did under control mode to an episode store: a `ControlObserver`.

A step of the store is a control period of the policy, which may be several control steps: what was
seen last before it, and the actions of its control steps together, as they were executed, after
every guard. So a policy that is trained on it acts at the same rate as the one that was served.
Where there is a gap, because a stop was latched or nothing was seen for a period, an episode ends
and the next one begins.

`recording` writes. Shapes: A action dim.
"""

from collections import deque
from pathlib import Path

import numpy as np

from loopdit.datasets.spec import PolicySpec
from loopdit.deploy.operation.recorded_episodes import Step
from loopdit.deploy.operation.recording import Recorded, Recording
from loopdit.deploy.robot.commanded_pose import Shifts, merged
from loopdit.deploy.robot.control.controller import Acted
from loopdit.deploy.robot.control.messages import HOLD, POLICY
from loopdit.deploy.robot.control.seen_history import Seen

# Extras of a recorded episode: the control step that a step begins with, the one that its
# observation is of, and in how many of its control steps the policy had no action and it held.
STEP, SEEN_STEP, HELD = "step", "seen_step", "held"
_EXTRAS_BYTES = 3 * 8
_SESSION = 1


class ControlRecorder:
    """See `Recording`, for memory and errors. `parts`: control steps in a period of the policy."""

    def __init__(
        self, path: Path, spec: PolicySpec, model_id: str, parts: int, memory_bytes: int
    ) -> None:
        self._recording = Recording(path, spec, _EXTRAS_BYTES, memory_bytes)
        self._names = [tensor.name for tensor in spec.recorded.observations]
        self._model_id = model_id
        self._parts = parts
        self._shifts = Shifts(spec.action.labels)
        self._seen: deque[Seen] = deque()  # of the present episode, what a step may begin with
        self._begun = 0  # the control step that the present period began with
        self._acted: list[Acted] = []  # in that period
        self._moves = False  # it has, since an episode of the store began
        self._epoch = 0
        self._robots_episode: int | None = None

    @property
    def recorded(self) -> Recorded:
        """What came of it so far; from any thread."""
        return self._recording.recorded

    def seen(self, seen: Seen) -> None:
        """See `ControlObserver`."""
        if seen.episode != self._robots_episode:
            self._robots_episode = seen.episode
            self._seen.clear()
            self._end()
        self._seen.append(seen)
        first = (self._begun if self._acted else seen.step) - self._parts
        while self._seen and self._seen[0].step <= first:
            self._seen.popleft()

    def acted(self, step: int, acted: Acted) -> None:
        """See `ControlObserver`."""
        if acted.source not in (POLICY, HOLD):
            if self._acted:
                self._recording.drop()
            if self._moves:
                self._end()
            return
        self._moves = True
        if not self._acted:
            self._begun = step
        self._acted.append(acted)
        if len(self._acted) == self._parts:
            self._note()

    def close(self) -> Recorded:
        """Write what is under way, as complete."""
        return self._recording.close()

    def _note(self) -> None:
        """The period that is complete, where something was seen at its beginning."""
        before = self._begun - self._parts
        recent = (one for one in reversed(self._seen) if before < one.step <= self._begun)
        seen = next(recent, None)
        # Stores know no optional cameras.
        if seen is None or not all(name in seen.observation for name in self._names):
            self._recording.drop()
            self._end()
            return
        actions = np.array([one.action for one in self._acted], np.float32)
        step = Step(
            session=_SESSION,
            epoch=self._epoch,
            instruction=seen.instruction,
            model_id=self._model_id,
            observation={name: seen.observation[name] for name in self._names},
            action=merged(actions, self._parts, self._shifts)[0],
            extras={
                STEP: self._begun,
                SEEN_STEP: seen.step,
                HELD: sum(one.source == HOLD for one in self._acted),
            },
        )
        self._recording.note(step)
        self._acted.clear()

    def _end(self) -> None:
        """What comes is of another episode of the store."""
        self._acted.clear()
        self._moves = False
        self._epoch += 1
        self._recording.under_way({_SESSION: self._epoch})
