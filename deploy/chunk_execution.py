"""Which action of which chunk is played at a control step, when chunks take time to come.

    blocking   stop and go: wait for a chunk, play the front of it, stop, ask again
    naive      play on while the next chunk is computed; that one plays from its first action, so
               late by as much as it took
    aligned    play on, and of the next chunk the action whose time it is
    ensemble   ask at every step, play the weighted mean of all actions meant for this step

Pure state machines over counted steps: they know no clock, no policy and no socket, and whether
a request is under way is the caller's to know. `chunk_player` does in seconds, for a robot, what
"aligned" does in steps. Without delay blocking, naive and aligned play the same.

Shapes: H action horizon, A action dim. Action i of a chunk is meant for step observed + i.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from loopdit.errors import ConfigError

# Temporal ensembling as in ACT (arXiv 2304.13705): weights exp(-m i), i = 0 the oldest chunk.
ENSEMBLE_M = 0.01


class ChunkExecution(Protocol):
    """Turns chunks into one action a step. Steps count from 0 in each episode."""

    def wants_chunk(self, step: int) -> bool:
        """Whether the observation of `step` should be sent, asked when no request is under way."""
        ...

    def requested(self, step: int) -> None:
        """The observation of `step` was sent."""
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


# By name: what makes the execution, given how many actions of a chunk to play before the next.
EXECUTIONS: dict[str, Callable[[int], ChunkExecution]] = {
    "blocking": lambda horizon: LatestChunk(horizon, by_observation=False, plays_on=False),
    "naive": lambda horizon: LatestChunk(horizon, by_observation=False, plays_on=True),
    "aligned": lambda horizon: LatestChunk(horizon, by_observation=True, plays_on=True),
    "ensemble": lambda horizon: Ensemble(),
}


def make_execution(name: str, execute_horizon: int) -> ChunkExecution:
    """The execution `name`, fresh. Raises ConfigError for an unknown one or a horizon below 1."""
    if name not in EXECUTIONS:
        raise ConfigError(f"execution={name} is unknown. There are: {', '.join(EXECUTIONS)}.")
    if execute_horizon < 1:
        raise ConfigError(f"execute_horizon={execute_horizon} must be at least 1.")
    return EXECUTIONS[name](execute_horizon)


def _require_actions(actions: np.ndarray) -> None:
    if len(actions) == 0:
        raise ValueError("a chunk needs at least one action.")
