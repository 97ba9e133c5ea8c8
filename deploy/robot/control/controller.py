"""What a robot does at each control step, from what it observes and the chunks that come.

A pure state machine over counted control steps: observations and chunks in, requests for chunks and
actions out. A step is one action that was given to the robot; while it waits for its first chunk
none passes. So how late a chunk is, is what the robot really did meanwhile, and the first one,
however long it takes, is played from its first action.

A policy's control period may be several control steps: its actions are then divided.

Shapes: H action horizon, A action dim.
"""

from collections import deque
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from loopdit.datasets.spec import Observation, PolicySpec
from loopdit.deploy.robot.chunk_execution import ChunkExecution
from loopdit.deploy.robot.commanded_pose import Shifts, divided, merged
from loopdit.deploy.robot.committed import from_observation, with_committed
from loopdit.deploy.robot.control.messages import HOLD, POLICY
from loopdit.deploy.robot.control.seen_history import Seen, SeenHistory
from loopdit.deploy.robot.guide import GUIDE
from loopdit.deploy.robot.observation_history import stacked
from loopdit.deploy.robot.safety.safety_filter import SafetyFilter, commanded_position

# Control steps that an observation may be old.
_REMEMBERED = 512


@dataclass(frozen=True)
class ChunkRequest:
    """What a policy is to be asked, for the observation of `step`, the last of `seen`; `told` are
    the actions in flight (n, A), `beside` what else is given. `epoch` grows with each reset: what
    was asked before is void."""

    seen: tuple[Observation, ...]
    beside: Observation
    instruction: str
    step: int
    epoch: int
    told: np.ndarray

    @cached_property
    def observation(self) -> Observation:
        """What the policy is given. Made when it is first asked for, in whose thread that is: to
        stack the frames of a history takes milliseconds, which the control loop does not have."""
        return {**stacked(self.seen), **self.beside}


@dataclass(frozen=True)
class Acted:
    """The action (A,) float32 of a step; where it comes from: the policy, nowhere (it holds), or
    what has stopped it; and the guards that changed it."""

    action: np.ndarray
    source: str
    changed_by: tuple[str, ...]


class Controller:
    """See the module. `parts`: control steps in a control period of the policy.

    Raises ValueError for a policy that is told the actions in flight where its control period is
    not the robot's.
    """

    def __init__(
        self, execution: ChunkExecution, safety: SafetyFilter, spec: PolicySpec, parts: int
    ) -> None:
        if spec.committed is not None and parts > 1:
            raise ValueError("what is in flight can be told at the policy's own rate alone.")
        self._execution = execution
        self.safety = safety
        self._spec = spec
        self._parts = parts
        self._shifts = Shifts(spec.action.labels)
        self._seen: Seen | None = None
        self._history = SeenHistory(spec.history, parts)
        self._done: deque[np.ndarray] = deque(maxlen=_REMEMBERED)  # what was executed
        self._asked_step = -1  # of the newest observation that was sent
        self._under_way = False
        self.epoch = 0
        self.step = 0

    @property
    def episode(self) -> int:
        """Of the latest observation."""
        return 0 if self._seen is None else self._seen.episode

    def observe(self, seen: Seen) -> None:
        """Take in the newest observation. With one of another episode all begins anew but a stop,
        which stays."""
        if self._seen is not None and seen.episode != self._seen.episode:
            self.safety.begin()
            self._begin(seen.step - 1)
        self._seen = seen
        self._history.add(seen)
        position = commanded_position(seen.observation, self._spec)
        if position is not None:
            since = self._since(seen.step)
            self.safety.measured(position + since[:, self._shifts.translation].sum(axis=0))

    def request(self) -> ChunkRequest | None:
        """What to ask the policy now; None while a request is under way, or nothing is needed, or
        nothing new was seen."""
        seen = self._seen
        if seen is None or self._under_way or seen.step <= self._asked_step:
            return None
        if self.safety.stopped_by or not self._execution.wants_chunk(self.step):
            return None
        if self._spec.committed is not None and seen.step != self.step:
            return None  # what it is told is in flight begins at what it sees
        told = self._execution.committed(self.step)
        beside = with_committed({}, told, self._spec)
        guide = self._execution.guide(self.step)
        if len(guide):
            beside = {**beside, GUIDE: self._guide_from(seen.step, guide)}
        self._execution.requested(self.step)
        self._under_way, self._asked_step = True, seen.step
        rows = self._history.rows()
        return ChunkRequest(rows, beside, seen.instruction, seen.step, self.epoch, told)

    def answer(self, request: ChunkRequest, actions: np.ndarray | None) -> None:
        """The chunk (H, A) that came for a request; None where there will be none. Nothing that
        was asked for before a reset is ever played."""
        if request.epoch != self.epoch:
            return
        self._under_way = False
        if actions is not None:
            chunk = divided(actions, self._parts, self._shifts)
            chunk = from_observation(chunk, request.told, self._spec.chunk_from)
            self._execution.load(chunk, request.step, self.step)

    def act(self) -> Acted | None:
        """What to do at this step; None before the first chunk, when no step passes."""
        wanted = self._execution.action(self.step)
        safe = self.safety.step(wanted, fresh=wanted is not None)
        if safe.action is None:
            return None
        if wanted is None or not np.array_equal(safe.action, wanted):
            self._execution.executed(self.step, safe.action)
        self._done.append(safe.action)
        self.step += 1
        source = safe.stopped_by or (HOLD if wanted is None else POLICY)
        return Acted(safe.action, source, safe.changed_by)

    def reset(self) -> None:
        """Somebody has looked after a stop: plan anew from what is seen from now on."""
        self.safety.reset()
        self._begin(self.step - 1)
        if self._seen is not None:
            self._history.add(self._seen)

    def _begin(self, asked_step: int) -> None:
        self._execution.reset()
        self._history.reset()
        self._under_way = False
        self.epoch += 1
        self._asked_step = asked_step

    def _since(self, step: int) -> np.ndarray:
        """(n, A), what was executed at `step` and after, as far as it is remembered."""
        count = min(max(0, self.step - step), len(self._done))
        recent = [self._done[i] for i in range(len(self._done) - count, len(self._done))]
        return np.array(recent, np.float32).reshape(count, self._spec.action.shape[0])

    def _guide_from(self, step: int, guide: np.ndarray) -> np.ndarray:
        """A guide (n, A + 1) from this step on, as one from the observation's in the policy's own
        control periods: what was executed meanwhile is in front and counts fully."""
        past = self._since(step)
        past = np.concatenate([past, np.ones((len(past), 1), np.float32)], axis=1)
        whole = np.concatenate([past, guide])
        few = merged(whole[:, :-1], self._parts, self._shifts)
        weights = whole[:: self._parts, -1:][: len(few)]
        return np.concatenate([few, weights], axis=1).astype(np.float32)
