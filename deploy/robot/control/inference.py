"""The thread that computes chunks for control mode, one at a time, as deep as there is time for."""

import logging
import queue
import threading
from dataclasses import dataclass

import numpy as np

from loopdit.deploy.clock import Clock
from loopdit.deploy.robot.control.controller import ChunkRequest
from loopdit.deploy.serving.offer import Offer
from loopdit.deploy.serving.planner import Rung
from loopdit.deploy.serving.served_policy import ServedPolicy

_LOG = logging.getLogger(__name__)
_ENDING_S = 2.0


@dataclass(frozen=True)
class Computed:
    """The chunk (H, A) for a request, None where the policy failed; what was run, and how long it
    took from being asked."""

    request: ChunkRequest
    actions: np.ndarray | None
    rung: Rung
    took_s: float


class Inference:
    """`ask` and `done` are called from the control thread, and never wait."""

    def __init__(self, policy: ServedPolicy, offer: Offer, budget_s: float, clock: Clock) -> None:
        self._policy = policy
        self._planner = offer.planner
        self._budget_s = budget_s
        self._clock = clock
        self._asked: queue.SimpleQueue[tuple[ChunkRequest, float] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Computed] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="policy-inference", daemon=True)
        self._seed = 0

    def start(self) -> None:
        """Begin to compute."""
        self._thread.start()

    def stop(self) -> None:
        """What is asked from now on is not computed; what is under way has a moment to end, because
        libraries take it ill when their process ends within them."""
        self._asked.put(None)
        self._thread.join(_ENDING_S)

    def ask(self, request: ChunkRequest) -> None:
        """At most one at a time."""
        self._asked.put((request, self._clock.now))

    def done(self) -> Computed | None:
        """What was computed since the last call."""
        try:
            return self._done.get_nowait()
        except queue.Empty:
            return None

    def _run(self) -> None:
        while (asked := self._asked.get()) is not None:
            request, asked_s = asked
            rung = self._rung()
            actions = self._infer(request, rung)
            now = self._clock.now
            if actions is not None:
                self._planner.observe(rung, 1, now - asked_s)
            self._done.put(Computed(request, actions, rung, now - asked_s))

    def _rung(self) -> Rung:
        rungs = self._planner.allowed(0, 0)
        return self._planner.choose(rungs, self._budget_s) or rungs[-1]

    def _infer(self, request: ChunkRequest, rung: Rung) -> np.ndarray | None:
        self._seed += 1
        try:
            made = self._policy.infer(
                request.observation,
                seed=self._seed,
                loops=rung.loops,
                steps=rung.steps,
                instruction=request.instruction,
            )
        except Exception:  # any: the robot holds, the watchdog counts, and the log says why
            _LOG.exception("inference failed")
            return None
        return made.actions
