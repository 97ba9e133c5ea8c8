"""Chunks of shifts, played by the poses that they lead to.

The chunk of a delta policy begins at the pose that was commanded when its observation was made. By
the time it comes other steps have been executed, from which its own lead elsewhere: skipping those
whose time has passed leaves out motion that then never happens, and playing them all does some of
it twice. Here a chunk says at which pose to be, and when; what is played is the shift from where
the command is to where the chunk wants it. What a limit cuts off is made up for by the next steps.

`Tracked` puts this around any other execution, which then plays poses without knowing it. Actions
without shifts are played as they are.

Shapes: H action horizon, A action dim; poses (A + 9,) as in `commanded_pose`.
"""

import numpy as np

from loopdit.datasets.tensor_spec import TensorSpec
from loopdit.deploy.robot.chunk_execution import ChunkExecution
from loopdit.deploy.robot.commanded_pose import Shifts
from loopdit.errors import ConfigError

# Steps that an observation may be old, and its chunk late, together.
_REMEMBERED = 4096


class Tracked:
    """See `chunk_execution.ChunkExecution`: `inner` plays poses, `spec` says what an action is.

    Raises ConfigError for an action without labels: nothing says which of its elements are shifts.
    """

    def __init__(self, inner: ChunkExecution, spec: TensorSpec) -> None:
        if not spec.labels:
            raise ConfigError(
                "chunks cannot be played by the poses that they lead to: the action has no labels, "
                "which say what of it is a shift. Give them in the spec, or use another execution."
            )
        self._inner = inner
        self._shifts = Shifts(spec.labels)
        self._low = np.array(spec.low or [-np.inf] * len(spec.labels))
        self._high = np.array(spec.high or [np.inf] * len(spec.labels))
        self.reset()

    def wants_chunk(self, step: int) -> bool:
        """As the inner one."""
        return self._inner.wants_chunk(step)

    def committed(self, step: int) -> np.ndarray:
        """As the inner one, as shifts from where the command is."""
        return self._as_actions(self._inner.committed(step))

    def guide(self, step: int) -> np.ndarray:
        """As the inner one, as shifts from where the command is."""
        guide = self._inner.guide(step)
        if len(guide) == 0:
            return guide
        return np.concatenate([self._as_actions(guide[:, :-1]), guide[:, -1:]], axis=1)

    def requested(self, step: int) -> None:
        """As the inner one."""
        self._inner.requested(step)

    def load(self, actions: np.ndarray, observed_step: int, step: int) -> None:
        """Replace, join or average as the inner one does, by poses."""
        begins = self._poses.get(observed_step, self._pose)
        for before in [passed for passed in self._poses if passed < observed_step]:
            del self._poses[before]
        self._inner.load(self._shifts.poses(begins, actions), observed_step, step)

    def action(self, step: int) -> np.ndarray | None:
        """(A,) float32 within the action's limits, or None where the inner one has none."""
        if len(self._poses) >= _REMEMBERED:
            del self._poses[next(iter(self._poses))]
        self._poses[step] = self._pose
        wanted = self._inner.action(step)
        if wanted is None:
            return None
        action = self._shifts.action(self._pose, wanted)
        action = np.clip(action, self._low, self._high).astype(np.float32)
        self._pose = self._after(self._pose, action)
        return action

    def executed(self, step: int, action: np.ndarray) -> None:
        """The command is where that leads."""
        self._inner.executed(step, action)
        self._pose = self._after(self._poses[step], action)

    def reset(self) -> None:
        """Forget the chunks, and where the command is."""
        self._inner.reset()
        self._pose = self._shifts.start()
        # Where the command was before each step since the last observation that a chunk came for.
        self._poses: dict[int, np.ndarray] = {}

    def _after(self, pose: np.ndarray, action: np.ndarray) -> np.ndarray:
        return self._shifts.poses(pose, action[None])[0]

    def _as_actions(self, poses: np.ndarray) -> np.ndarray:
        return self._shifts.actions(self._pose, poses) if len(poses) else poses
