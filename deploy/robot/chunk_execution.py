"""Which action of which chunk is played at a control step, when chunks take time to come.

    blocking   stop and go: wait for a chunk, play the front of it, stop, ask again
    naive      play on while the next chunk is computed; that one plays from its first action, so
               late by as much as it took
    aligned    play on, and of the next chunk the action whose time it is
    ensemble   ask at every step, play the weighted mean of all actions meant for this step
    informed   as aligned, and the policy is told which actions will play before its chunk can be
               there; a chunk begins after as many of its actions as were played meanwhile

Pure state machines over counted steps: they know no clock, no policy and no socket, and whether
a request is under way is the caller's to know. `chunk_player` does in seconds, for a robot, what
"aligned" does in steps. Without delay all but the ensemble play the same.

Shapes: H action horizon, A action dim. Action i of a chunk is meant for step observed + i.
"""

from collections import deque
from collections.abc import Callable
from typing import Protocol

import numpy as np

from loopdit.errors import ConfigError

# Temporal ensembling as in ACT (arXiv 2304.13705): weights exp(-m i), i = 0 the oldest chunk.
ENSEMBLE_M = 0.01
# Chunks whose delays say how late the next one may be, by the largest (arXiv 2506.07339).
_DELAYS = 10
_NOTHING = np.empty((0, 0), np.float32)


class ChunkExecution(Protocol):
    """Turns chunks into one action a step. Steps count from 0 in each episode."""

    def wants_chunk(self, step: int) -> bool:
        """Whether the observation of `step` should be sent, asked when no request is under way."""
        ...

    def committed(self, step: int) -> np.ndarray:
        """The actions (n, A) that a policy is to be told of which is asked now, before `step`:
        those of `step` and after that will be played whatever it answers. None where n is 0."""
        ...

    def requested(self, step: int) -> None:
        """The observation of `step` was sent, with what is committed then."""
        ...

    def load(self, actions: np.ndarray, observed_step: int, step: int) -> None:
        """The chunk (H, A), H >= 1, for the observation of `observed_step` came before `step`."""
        ...

    def action(self, step: int) -> np.ndarray | None:
        """The action (A,) to execute at `step`, or None where no chunk has one."""
        ...

    def reset(self) -> None:
        """Forget everything: a new episode begins."""
        ...


class LatestChunk:
    """Plays the newest chunk alone; asks for another after `execute_horizon` steps of it, or at
    the end of a shorter one.

    by_observation: the chunk's first action belongs to the step of its observation, and not to
    the step it came at. plays_on: actions beyond the execute horizon are played while the next
    chunk is under way.
    """

    def __init__(self, execute_horizon: int, by_observation: bool, plays_on: bool) -> None:
        self._execute_horizon = execute_horizon
        self._by_observation = by_observation
        self._plays_on = plays_on
        self._actions: np.ndarray | None = None
        self._first_step = 0

    def wants_chunk(self, step: int) -> bool:
        """At first, and when the front of the chunk has had its steps."""
        if self._actions is None:
            return True
        return step - self._first_step >= min(self._execute_horizon, len(self._actions))

    def committed(self, step: int) -> np.ndarray:
        """Nothing: the policy is not told."""
        return _NOTHING

    def requested(self, step: int) -> None:
        """Nothing depends on it."""

    def load(self, actions: np.ndarray, observed_step: int, step: int) -> None:
        """Replace the present chunk."""
        _require_actions(actions)
        self._actions = actions
        self._first_step = observed_step if self._by_observation else step

    def action(self, step: int) -> np.ndarray | None:
        """(A,), or None before the first chunk and beyond the end."""
        if self._actions is None:
            return None
        index = step - self._first_step
        front = self._actions if self._plays_on else self._actions[: self._execute_horizon]
        return front[index] if index < len(front) else None

    def reset(self) -> None:
        """Forget the chunk."""
        self._actions = None


class Ensemble:
    """Plays the weighted mean of what every chunk so far has for this step, older ones first.

    Every element is averaged, the gripper's too: where chunks disagree about it, it is half open.
    """

    def __init__(self) -> None:
        self._chunks: list[tuple[int, np.ndarray]] = []  # observed step, actions (H, A)

    def wants_chunk(self, step: int) -> bool:
        """At every step."""
        del step
        return True

    def committed(self, step: int) -> np.ndarray:
        """Nothing: what plays is a mean in which the new chunk takes part."""
        return _NOTHING

    def requested(self, step: int) -> None:
        """Nothing depends on it."""

    def load(self, actions: np.ndarray, observed_step: int, step: int) -> None:
        """Add a chunk to the mean."""
        del step
        _require_actions(actions)
        self._chunks.append((observed_step, actions))

    def action(self, step: int) -> np.ndarray | None:
        """(A,) float32, or None where no chunk reaches this step."""
        self._chunks = [(first, a) for first, a in self._chunks if step - first < len(a)]
        if not self._chunks:
            return None
        meant = np.stack([actions[step - first] for first, actions in self._chunks])  # (N, A)
        weights = np.exp(-ENSEMBLE_M * np.arange(len(meant)))
        return (weights @ meant / weights.sum()).astype(np.float32)

    def reset(self) -> None:
        """Forget all chunks."""
        self._chunks = []


class Informed:
    """Plays the chunk under way until the next one takes over, which was told what that has played.

    committed: how many actions the policy can be told of. As many are committed as the longest of
    the last few delays, and so much earlier than it is to take over the next chunk is asked for.
    A chunk begins with the first of its actions that is not done yet: done are those that the
    policy was told of, and more of the chunk before where it comes later than that. Steps at which
    nothing was played, such as those before the first chunk, leave out nothing: the robot stood
    still.
    """

    def __init__(self, execute_horizon: int, committed: int) -> None:
        self._execute_horizon = execute_horizon
        self._most_committed = committed
        self.reset()

    def wants_chunk(self, step: int) -> bool:
        """At first, and when a chunk asked for now can just be there in time."""
        return self._plan is None or step >= self._takes_over - max(self._delays, default=0)

    def committed(self, step: int) -> np.ndarray:
        """(n, A), the next actions of what plays now."""
        count = min(max(self._delays, default=0), self._most_committed)
        return self._from(step)[:count]

    def requested(self, step: int) -> None:
        """Those actions will be played whatever comes."""
        self._told = len(self.committed(step))

    def load(self, actions: np.ndarray, observed_step: int, step: int) -> None:
        """Put the chunk behind what is committed, or behind what was played where that is more."""
        _require_actions(actions)
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

    def reset(self) -> None:
        """Forget the chunk, and how late chunks are."""
        self._delays: deque[int] = deque(maxlen=_DELAYS)
        self._plan: np.ndarray | None = None  # (N, A), its first action for _first_step
        self._first_step = 0
        self._takes_over = 0  # the step at which the next chunk should
        self._told = 0

    def _from(self, step: int) -> np.ndarray:
        """(n, A), the actions of `step` and after, as far as they are planned."""
        return _NOTHING if self._plan is None else self._plan[max(0, step - self._first_step) :]


INFORMED = "informed"
# By name: what makes the execution, given how many actions of a chunk to play before the next, and
# how many actions in flight the policy can be told of.
EXECUTIONS: dict[str, Callable[[int, int], ChunkExecution]] = {
    "blocking": lambda horizon, _: LatestChunk(horizon, by_observation=False, plays_on=False),
    "naive": lambda horizon, _: LatestChunk(horizon, by_observation=False, plays_on=True),
    "aligned": lambda horizon, _: LatestChunk(horizon, by_observation=True, plays_on=True),
    "ensemble": lambda horizon, _: Ensemble(),
    INFORMED: Informed,
}


def make_execution(name: str, execute_horizon: int, committed: int = 0) -> ChunkExecution:
    """The execution `name`, fresh, for a policy that can be told of `committed` actions in flight.

    Raises ConfigError for an unknown one, a horizon below 1, or one that tells a policy what it
    does not take.
    """
    require_execution(name)
    if execute_horizon < 1:
        raise ConfigError(f"execute_horizon={execute_horizon} must be at least 1.")
    if name == INFORMED and committed < 1:
        others = ", ".join(other for other in EXECUTIONS if other != INFORMED)
        raise ConfigError(
            f"execution={INFORMED} tells the policy which actions are in flight, and this one does "
            f"not take that: its spec has no tensor `committed`. Use one that was trained to be "
            f"told, or execution={others}."
        )
    return EXECUTIONS[name](execute_horizon, committed)


def require_execution(name: str) -> None:
    """Raise ConfigError for an unknown one."""
    if name not in EXECUTIONS:
        raise ConfigError(f"execution={name} is unknown. There are: {', '.join(EXECUTIONS)}.")


def _require_actions(actions: np.ndarray) -> None:
    if len(actions) == 0:
        raise ValueError("a chunk needs at least one action.")
