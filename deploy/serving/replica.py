"""A policy in a process of its own, so that several compute at once and none takes the others down.

The two ends share a pipe, over which Python objects are pickled: both are this program, and nothing
from the network is unpickled. A process that ends is noticed at once, by the end of its pipe.
"""

import logging
import multiprocessing
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from multiprocessing.connection import Connection
from typing import Any

from loopdit.datasets.spec import Observation, PolicySpec
from loopdit.deploy.serving.planner import Latency
from loopdit.deploy.serving.served_policy import (
    Asked,
    Inference,
    Outcome,
    PlannedPolicy,
    ReplicaLost,
)
from loopdit.deploy.serving.worker import failure
from loopdit.errors import BundleError, LoopditError

_END_S = 5.0
# Not forked: a fork would share the runtimes' threads and the server's sockets.
_SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class _Facts:
    """What a `PlannedPolicy` says of itself."""

    spec: PolicySpec
    model_id: str
    horizon: int
    loops: tuple[int, ...]
    default_loops: int
    steps: int
    max_steps: int | None
    latency: Latency
    stops_early: bool
    runs_on: str  # what computes it, for people


class Replica:
    """See `served_policy.PlannedPolicy` and `Revivable`. `make(*arguments)`, of a module's top
    level, makes the policy in the child, warm. Its facts are there after `wait_ready`."""

    def __init__(self, make: Callable[..., PlannedPolicy], *arguments: object) -> None:
        self._make, self._arguments = make, arguments
        self._start()

    def wait_ready(self) -> None:
        """Raises the LoopditError that making the policy raised, or ReplicaLost."""
        facts = self._receive()
        if isinstance(facts, LoopditError):
            raise facts
        self.spec, self.model_id, self.horizon = facts.spec, facts.model_id, facts.horizon
        self.loops, self.default_loops = facts.loops, facts.default_loops
        self.steps, self.max_steps = facts.steps, facts.max_steps
        self.latency, self.stops_early = facts.latency, facts.stops_early
        self.runs_on = facts.runs_on

    @property
    def alive(self) -> bool:
        """Whether its process is there."""
        return self._process.is_alive()

    @property
    def process_id(self) -> int | None:
        """Of the operating system."""
        return self._process.pid

    def infer_batch(
        self, asked: Sequence[Asked], *, loops: int, steps: int, may_stop: bool
    ) -> list[Outcome]:
        """See `PlannedPolicy.infer_batch`. Raises ReplicaLost where its process ended."""
        if not self.alive:
            raise self._lost(begun=False)
        try:
            self._connection.send((asked, loops, steps, may_stop))
        except OSError as error:
            raise self._lost(begun=False) from error
        return self._receive()

    def infer(
        self, observation: Observation, *, seed: int, loops: int, steps: int, instruction: str = ""
    ) -> Inference:
        """See `ServedPolicy.infer`."""
        asked = Asked(observation, seed, instruction)
        (made,) = self.infer_batch([asked], loops=loops, steps=steps, may_stop=False)
        if isinstance(made, Exception):
            raise made
        return made

    def revive(self) -> None:
        """See `Revivable.revive`. Raises BundleError where it is another model by now: the others
        go on with the old one until all are replaced."""
        before = self.model_id
        self.close()
        self._start()
        self.wait_ready()
        if self.model_id != before:
            found, self.model_id = self.model_id, before
            self.close()
            raise BundleError(
                f"its bundle was overwritten: {before} is served, {found} lies there. Send SIGHUP "
                f"to serve the new one."
            )

    def close(self) -> None:
        """End the process; it exits by itself when its pipe closes."""
        self._connection.close()
        self._process.join(_END_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _start(self) -> None:
        self._connection, remote = _SPAWN.Pipe()
        self._process = _SPAWN.Process(
            target=_run, args=(remote, self._make, self._arguments), daemon=True
        )
        self._process.start()
        remote.close()

    def _receive(self) -> Any:
        try:
            return self._connection.recv()
        except (EOFError, OSError) as error:
            raise self._lost() from error

    def _lost(self, begun: bool = True) -> ReplicaLost:
        self._process.join(_END_S)
        status = self._process.exitcode
        return ReplicaLost(f"the process that computed ended by itself (status {status}).", begun)


def start_replicas(
    count: int, make: Callable[..., PlannedPolicy], *arguments: object
) -> list[Replica]:
    """So many, all ready. Raises what the first that failed raised."""
    replicas = [Replica(make, *arguments) for _ in range(count)]
    try:
        for replica in replicas:
            replica.wait_ready()
    except BaseException:
        for replica in replicas:
            replica.close()
        raise
    return replicas


def _run(
    connection: Connection, make: Callable[..., PlannedPolicy], arguments: tuple[object, ...]
) -> None:
    # The server's to handle: it ends its replicas when it has drained.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        policy = make(*arguments)
    except LoopditError as error:
        connection.send(error)
        return
    connection.send(_facts(policy))
    try:
        while True:
            asked, loops, steps, may_stop = connection.recv()
            connection.send(_outcomes(policy, asked, loops, steps, may_stop))
    except (EOFError, BrokenPipeError):
        sys.exit(0)  # the server closed it, or is gone


def _facts(policy: PlannedPolicy) -> _Facts:
    return _Facts(**{field.name: getattr(policy, field.name) for field in fields(_Facts)})


def _outcomes(
    policy: PlannedPolicy, asked: Sequence[Asked], loops: int, steps: int, may_stop: bool
) -> list[Outcome]:
    """As plain errors, which can be pickled."""
    try:
        made = policy.infer_batch(asked, loops=loops, steps=steps, may_stop=may_stop)
    except Exception as error:  # any: it is an outcome, and the process goes on
        made = [error] * len(asked)
    return [failure(one) if isinstance(one, Exception) else one for one in made]
