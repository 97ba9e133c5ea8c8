"""Which action of which chunk is played at a control step, when chunks take time to come.

Pure state machines over counted steps: they know no clock, no policy and no socket, and whether
a request is under way is the caller's to know. This file has what they have in common and those
that replace or average chunks; `informed_execution` and `tracked_execution` have the others, and
`executions` all of them by name. `chunk_player` does in seconds what "aligned" does in steps.

A chunk belongs to the control step that its observation is stamped with: how many steps passed
until it came is counted, never estimated.

Shapes: H action horizon, A action dim. Action i of a chunk is meant for step observed + i.
"""

from typing import Protocol

import numpy as np

# Temporal ensembling as in ACT (arXiv 2304.13705): weights exp(-m i), i = 0 the oldest chunk.
ENSEMBLE_M = 0.01
NOTHING = np.empty((0, 0), np.float32)


class ChunkExecution(Protocol):
    """Turns chunks into one action a step. Steps count from 0 in each episode."""

    def wants_chunk(self, step: int) -> bool:
        """Whether the observation of `step` should be sent, asked when no request is under way."""
        ...

    def committed(self, step: int) -> np.ndarray:
        """The actions (n, A) that a policy is to be told of which is asked now, before `step`:
        those of `step` and after that will be played whatever it answers. None where n is 0."""
        ...

    def guide(self, step: int) -> np.ndarray:
        """The actions planned for `step` and after, each followed by how much a chunk asked for now
        should keep to it: (n, A + 1), see `guide`. None where n is 0."""
        ...

    def requested(self, step: int) -> None:
        """The observation of `step` was sent, with what is committed then."""
        ...

    def load(self, actions: np.ndarray, observed_step: int, step: int) -> None:
        """The chunk (H, A), H >= 1, for the observation of `observed_step` came before `step`."""
        ...

    def action(self, step: int) -> np.ndarray | None:
        """The action (A,) to execute at `step`, or None where no chunk has one. Asked once for each
        step, in order."""
        ...

    def executed(self, step: int, action: np.ndarray) -> None:
        """`action` was executed at `step` and not what `action` said: a limit changed it."""
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
        return NOTHING

    def guide(self, step: int) -> np.ndarray:
        """Nothing."""
        return NOTHING

    def requested(self, step: int) -> None:
        """Nothing depends on it."""

    def executed(self, step: int, action: np.ndarray) -> None:
        """Nothing depends on it."""

    def load(self, actions: np.ndarray, observed_step: int, step: int) -> None:
        """Replace the present chunk."""
        require_actions(actions)
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
        return NOTHING

    def guide(self, step: int) -> np.ndarray:
        """Nothing."""
        return NOTHING

    def requested(self, step: int) -> None:
        """Nothing depends on it."""

    def executed(self, step: int, action: np.ndarray) -> None:
        """Nothing depends on it."""

    def load(self, actions: np.ndarray, observed_step: int, step: int) -> None:
        """Add a chunk to the mean."""
        del step
        require_actions(actions)
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


def require_actions(actions: np.ndarray) -> None:
    """Raise ValueError for a chunk of nothing."""
    if len(actions) == 0:
        raise ValueError("a chunk needs at least one action.")
