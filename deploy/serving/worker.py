"""A thread that computes jobs on one policy, one at a time.

It never raises and never stops of itself: what goes wrong is an outcome. A policy whose process is
gone is started again here, while others compute.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from loopdit.deploy.clock import Clock
from loopdit.deploy.messages import WireError
from loopdit.deploy.serving.answers import Job
from loopdit.deploy.serving.frames import with_frames
from loopdit.deploy.serving.served_policy import (
    Asked,
    InferenceFailed,
    Outcome,
    PlannedPolicy,
    ReplicaLost,
    Revivable,
    ServedPolicy,
)
from loopdit.errors import LoopditError, ObservationError, OutOfMemory

_LOG = logging.getLogger(__name__)
# How often an idle one is looked at, and how long to wait before another attempt to start it.
_LOOK_S = 0.2
_RETRY_S, _RETRY_MAX_S = 1.0, 30.0


@dataclass(frozen=True)
class Report:
    """A job's outcomes, or none: the worker's state changed. able: whether it takes another job."""

    worker: "Worker"
    job: Job | None
    outcomes: list[Outcome] = field(default_factory=list[Outcome])
    ended_s: float = 0.0
    able: bool = True


class Worker:
    """See the module. `report` is called in the worker's thread."""

    def __init__(
        self, policy: ServedPolicy, clock: Clock, report: Callable[[Report], object]
    ) -> None:
        self.policy = policy
        self._compute = computation(policy, clock)
        self._revivable = policy if isinstance(policy, Revivable) else None
        self._clock = clock
        self._report = report
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="policy-inference", daemon=True)

    def start(self) -> None:
        """Begin to take jobs."""
        self._thread.start()

    def give(self, job: Job) -> None:
        """The next job."""
        self._jobs.put(job)

    def stop(self) -> None:
        """Take no more jobs; the one in compute is finished. Returns at once."""
        self._stopping.set()
        self._jobs.put(None)

    def join(self, timeout_s: float) -> None:
        """Wait for the end, after `stop`."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while (job := self._next_job()) is not None:
            job, outcomes = self._compute(job)
            lost = any(isinstance(outcome, ReplicaLost) for outcome in outcomes)
            self._report(Report(self, job, outcomes, self._clock.now, able=not lost))
            if lost:
                self._revive()
        if self._revivable is not None:
            self._revivable.close()

    def _next_job(self) -> Job | None:
        if self._revivable is None:
            return self._jobs.get()
        while True:
            try:
                return self._jobs.get(timeout=_LOOK_S)
            except queue.Empty:
                if not self._revivable.alive:
                    self._report(Report(self, None, able=False))
                    self._revive()

    def _revive(self) -> None:
        policy, wait_s = self._revivable, _RETRY_S
        while policy is not None and not self._stopping.is_set():
            began = time.monotonic()
            try:
                policy.revive()
            except (LoopditError, OSError) as error:  # OSError: no process can be started now
                _LOG.warning("a replica does not start: %s Trying again in %g s.", error, wait_s)
                self._stopping.wait(wait_s)
                wait_s = min(2 * wait_s, _RETRY_MAX_S)
            else:
                took_s = time.monotonic() - began
                _LOG.warning("a replica had ended; started again in %.1f s", took_s)
                self._report(Report(self, None, able=True))
                return


def computation(policy: ServedPolicy, clock: Clock) -> Callable[[Job], tuple[Job, list[Outcome]]]:
    """What computes a job on `policy`, and never raises: the outcome of each of its requests. The
    job comes back with the frames that it had as JPEGs."""
    planned = policy if isinstance(policy, PlannedPolicy) else None

    def compute(job: Job) -> tuple[Job, list[Outcome]]:
        faults: Sequence[Exception | None] = [None] * len(job.requests)
        if any(request.obs.jpeg for request in job.requests):
            job, faults = with_frames(job, policy.spec, clock)
        asked = [
            Asked(request.observation, request.noise_seed, request.obs.instruction)
            for request, fault in zip(job.requests, faults, strict=True)
            if fault is None
        ]
        loops, steps = job.rung.loops, job.rung.steps
        try:
            if planned is None:
                made = [_infer(policy, one, loops, steps) for one in asked]
            else:
                made = planned.infer_batch(asked, loops=loops, steps=steps, may_stop=job.may_stop)
        except Exception as error:  # any: these requests are answered with it, and others served
            made = [error] * len(asked)
        computed = iter(made)
        outcomes = [next(computed) if fault is None else fault for fault in faults]
        return job, [failure(one) if isinstance(one, Exception) else one for one in outcomes]

    return compute


def failure(error: Exception) -> Exception:
    """What a request may be answered with: what its sender, or a lack of memory, is to blame for
    as it is, anything else without its details, which are logged."""
    if isinstance(error, (WireError, ObservationError, OutOfMemory, ReplicaLost, InferenceFailed)):
        return error
    if isinstance(error, MemoryError):
        return OutOfMemory("the server has no memory left for this.")
    _LOG.error("inference failed", exc_info=error)
    first_line = (str(error).splitlines() or [""])[0]
    return InferenceFailed(f"the policy raised {type(error).__name__}: {first_line}")


def _infer(policy: ServedPolicy, one: Asked, loops: int, steps: int) -> Outcome:
    try:
        return policy.infer(
            one.observation, seed=one.seed, loops=loops, steps=steps, instruction=one.instruction
        )
    except ObservationError as error:  # an instruction that this policy does not know
        return error
