"""A policy in a process of its own, so that several compute at once and none takes the others down.

Where that process is, and how it is reached, is its `Place`. One that has stopped answering, as its
process hangs or its machine is cut off, is given up: long before anybody else would know (Ray takes
a minute).
"""

import math
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

from loopdit.datasets.spec import Observation
from loopdit.deploy.serving.replica_process import ReplicaProcess
from loopdit.deploy.serving.replica_side import Facts, Recipe
from loopdit.deploy.serving.served_policy import Asked, Inference, Outcome, PlannedPolicy
from loopdit.errors import BundleError, LoopditError

# An answer may take so many times as long as the fastest one to the like, and this at least: a busy
# machine is not a silent one. Not the slowest one: the first may have compiled something.
_PATIENCE, _LEAST_PATIENCE_S = 30.0, 3.0


class Place(Protocol):
    """A `ReplicaSide` elsewhere, begun when this is made. One call at a time."""

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        ...

    @property
    def process_id(self) -> int | None:
        """Of its process, where that is this machine's."""
        ...

    def begin(self, method: str, *arguments: object) -> None:
        """Call a method of the side. Raises ReplicaLost."""
        ...

    def result(self, within_s: float = math.inf) -> Any:
        """What it returned, when it has. Raises ReplicaLost, also where that takes longer than
        `within_s`: only `close` may be called after that."""
        ...

    def close(self) -> None:
        """End it."""
        ...


class Replica:
    """See `served_policy.PlannedPolicy` and `Revivable`. `place` begins a process and is called
    again for each that takes its place. Its facts are there after `wait_loaded`, its latency after
    `wait_warm`."""

    def __init__(self, place: Callable[[], Place]) -> None:
        self._new_place = place
        self._place = place()
        self._fastest_s: dict[Hashable, float] = {}  # by what was asked
        self._place.begin("load")

    def wait_loaded(self) -> None:
        """Raises the LoopditError that making the policy raised, or ReplicaLost."""
        self._take_facts()

    def begin_warming(self) -> None:
        """Warm up, while others do. Raises ReplicaLost."""
        self._place.begin("warm")

    def wait_warm(self) -> None:
        """Raises as `wait_loaded`."""
        self._take_facts()

    @property
    def alive(self) -> bool:
        """Whether its process is there."""
        return self._place.alive

    @property
    def process_id(self) -> int | None:
        """Of its process, where that is this machine's."""
        return self._place.process_id

    def infer_batch(
        self, asked: Sequence[Asked], *, loops: int, steps: int, may_stop: bool
    ) -> list[Outcome]:
        """See `PlannedPolicy.infer_batch`. Raises ReplicaLost where its process ended, or answers
        no more."""
        # Of what was never asked for nothing is known: it may compile something first.
        kind = loops, steps, may_stop, *(tuple(one.observation) for one in asked)
        fastest_s = self._fastest_s.get(kind, math.inf)
        patience_s = max(_PATIENCE * fastest_s, _LEAST_PATIENCE_S)
        began_s = time.monotonic()
        self._place.begin("infer_batch", asked, loops, steps, may_stop)
        outcomes = self._place.result(patience_s)
        self._fastest_s[kind] = min(fastest_s, time.monotonic() - began_s)
        return outcomes

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
        self._fastest_s.clear()
        self._place = self._new_place()
        self._place.begin("load")
        self.wait_loaded()
        if self.model_id != before:
            found, self.model_id = self.model_id, before
            self.close()
            raise BundleError(
                f"its bundle was overwritten: {before} is served, {found} lies there. Send SIGHUP "
                f"to serve the new one."
            )
        self.begin_warming()
        self.wait_warm()

    def close(self) -> None:
        """End its process."""
        self._place.close()

    def _take_facts(self) -> None:
        facts: Facts | LoopditError = self._place.result()
        if isinstance(facts, LoopditError):
            raise facts
        self.spec, self.model_id, self.horizon = facts.spec, facts.model_id, facts.horizon
        self.loops, self.default_loops = facts.loops, facts.default_loops
        self.steps, self.max_steps = facts.steps, facts.max_steps
        self.latency, self.stops_early = facts.latency, facts.stops_early
        self.runs_on = facts.runs_on


def load_replicas(count: int, place: Callable[[], Place]) -> list[Replica]:
    """So many, loaded and cold. Raises what the first that failed raised, and BundleError where
    they are not of one model: their machines do not see the same bundle."""
    replicas: list[Replica] = []
    try:
        for _ in range(count):
            replicas.append(Replica(place))
        for replica in replicas:
            replica.wait_loaded()
        models = sorted({replica.model_id for replica in replicas})
        if len(models) > 1:
            raise BundleError(
                f"the replicas found different models, {' and '.join(models)}: let each machine "
                f"see the same bundle."
            )
    except BaseException:
        close_all(replicas)
        raise
    return replicas


def warm_replicas(replicas: Sequence[Replica]) -> None:
    """Warm them up, all at once. Raises what the first that failed raised, after closing them."""
    try:
        for replica in replicas:
            replica.begin_warming()
        for replica in replicas:
            replica.wait_warm()
    except BaseException:
        close_all(replicas)
        raise


def start_replicas(
    count: int, make: Callable[..., PlannedPolicy], *arguments: object
) -> list[Replica]:
    """Processes of this machine, all ready. Raises as `load_replicas`."""
    recipe = Recipe.of(make, *arguments)
    replicas = load_replicas(count, lambda: ReplicaProcess(recipe))
    warm_replicas(replicas)
    return replicas


def close_all(replicas: Sequence[Replica]) -> None:
    """End all of them."""
    for replica in replicas:
        replica.close()
