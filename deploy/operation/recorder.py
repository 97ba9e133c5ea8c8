"""Records what is served to an episode store: an `Observer` of a server that answers robots.

The server's I/O thread copies an observation and notes it; `recording` does the rest. A step's
action is the one that the chunk has for the moment of its observation: what a robot that asks at
each control step carries out. The whole chunk is kept beside it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from loopdit.datasets.spec import COMMITTED, FROM_COMMITTED, PolicySpec
from loopdit.deploy.messages import Chunk
from loopdit.deploy.operation.live_view import newest, request_of
from loopdit.deploy.operation.recorded_episodes import OBSERVED_NS, Step
from loopdit.deploy.operation.recording import Recorded, Recording
from loopdit.deploy.robot.committed import unpacked
from loopdit.deploy.serving.answers import Job
from loopdit.deploy.serving.dispatcher import Reply
from loopdit.deploy.serving.sessions import Request

# Extras of a recorded episode, besides: a chunk (H, A) and numbers for each step.
CHUNK, STEP, LOOPS, STEPS = "chunk", "step", "loops", "steps"


class Recorder:
    """See `Recording`, for memory and errors."""

    def __init__(self, path: Path, spec: PolicySpec, horizon: int, memory_bytes: int) -> None:
        self._spec = spec
        self._names = [tensor.name for tensor in spec.recorded.observations]
        chunk_bytes = 4 * horizon * spec.action.shape[0]
        self._recording = Recording(path, spec, chunk_bytes, memory_bytes)

    @property
    def recorded(self) -> Recorded:
        """What came of it so far; from any thread."""
        return self._recording.recorded

    def replying(self, replies: Sequence[Reply], job: Job | None) -> None:
        """Note the observations that are answered with chunks."""
        if job is None:
            return
        for reply in replies:
            if isinstance(reply.message, Chunk):
                actions = next(iter(reply.tensors.values()))
                try:
                    self._note(request_of(reply, job), reply.message, actions)
                except MemoryError:  # the answer matters more
                    self._recording.drop()

    def turned(self, epochs: Mapping[int, int]) -> None:
        """Note which episodes are under way."""
        self._recording.under_way(epochs)

    def close(self) -> Recorded:
        """Write what is under way, as complete."""
        return self._recording.close()

    def _note(self, request: Request, chunk: Chunk, actions: np.ndarray) -> None:
        observed = request.observation
        whole = all(name in observed for name in self._names)  # stores know no optional cameras
        if not (whole and self._recording.has_room):
            self._recording.drop()
            return
        step = Step(
            session=request.session,
            epoch=request.obs.epoch,
            instruction=request.obs.instruction,
            model_id=chunk.model_id,
            observation={
                name: np.array(newest(observed[name], self._spec)) for name in self._names
            },
            action=self._action_at(request, actions),
            extras={
                CHUNK: np.array(actions),
                OBSERVED_NS: chunk.observed_ns,
                STEP: chunk.step,
                LOOPS: chunk.loops,
                STEPS: chunk.steps,
            },
        )
        self._recording.note(step)

    def _action_at(self, request: Request, actions: np.ndarray) -> np.ndarray:
        """The action (A,) of the observation's own step: the chunk's first, or where the chunk
        comes after the actions in flight, the first of those."""
        if self._spec.chunk_from == FROM_COMMITTED:
            in_flight = unpacked(request.observation[COMMITTED])
            if len(in_flight):
                return np.array(in_flight[0])
        return np.array(actions[0])
