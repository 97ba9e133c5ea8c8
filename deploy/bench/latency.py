"""Time whole action chunks, fairly: each back end in a process of its own, arms in random order.

An arm is (back end, precision, K, steps, batch). Arms take turns in short visits: a round visits
each once, in a seeded random order, so that whatever else the machine does falls on all alike, and
two arms can be compared within a round. No sample is removed. What cannot run here is left with its
reason. What is timed for comparison beside the back ends (`roofline_products`) takes turns with
them.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from loopdit.deploy.backends.registry import FP32, KINDS
from loopdit.deploy.bench.own_process import ChildProcess
from loopdit.deploy.bench.statistics import summary
from loopdit.deploy.bench.timed_backend import COLUMNS, WALL, BackendFacts, TimedBackend, Workload
from loopdit.errors import BundleError, LoopditError

__all__ = ["Arm", "ArmResult", "Measured", "Missing", "Workload", "measure", "measure_arms"]

VISIT = 5  # timed chunks in one visit, after one that is not timed
Progress = Callable[[int, int], None]  # timed visits done, and in all


@dataclass(frozen=True)
class Arm:
    """One thing to time."""

    backend: str
    precision: str
    loops: int
    steps: int
    batch: int

    @property
    def process(self) -> tuple[str, str]:
        """Arms that are equal in this share a process."""
        return self.backend, self.precision

    @property
    def work(self) -> tuple[int, int, int]:
        """What is computed, whoever computes it: loops, steps, batch."""
        return self.loops, self.steps, self.batch


@dataclass(frozen=True)
class Missing:
    """Why a back end at a precision was not timed, or (loops, steps, batch) of it alone."""

    backend: str
    precision: str
    reason: str
    work: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class ArmResult:
    """One arm's samples: `times_ms` (rounds, VISIT, PARTS), `joules` of a chunk by the processor's
    counter (rounds,) or the GPU's (1,), and its actions (N, H, A) for the probes. first_ms: the
    first chunk of this K, steps and batch."""

    arm: Arm
    facts: BackendFacts
    first_ms: float
    times_ms: np.ndarray
    joules: np.ndarray
    rss_mib: float
    chunks: np.ndarray

    def chunk_ms(self, clock: str = WALL) -> np.ndarray:
        """Whole chunks by one of the clocks in COLUMNS, (rounds, VISIT)."""
        return self.times_ms[..., COLUMNS[clock]]

    def summary(self) -> dict[str, Any]:
        """The fields of a row of `bench.json` that come from timing."""
        return {
            "backend": self.arm.backend,
            "device": self.facts.device,
            "precision": self.arm.precision,
            "threads": self.facts.threads,
            "loops": self.arm.loops,
            "steps": self.arm.steps,
            "batch": self.arm.batch,
            **summary(self.times_ms),
            "first_ms": round(self.first_ms, 3),
            "load_ms": round(self.facts.load_ms, 1),
            "rss_mib": round(self.rss_mib, 1),
            "energy_mj": _millijoules(self.joules),
        }


@dataclass(frozen=True)
class Measured:
    """Everything of one run. yardsticks: milliseconds (rounds, VISIT, COLUMNS) of what took turns
    with the arms, by its name and work."""

    results: list[ArmResult]
    missing: list[Missing]
    yardsticks: dict[tuple[str, tuple[int, int, int]], np.ndarray]


@dataclass
class _Turns:
    """What is visited in each round, by its key: how, and what came of it."""

    visits: dict[Any, Callable[[], Any]] = field(default_factory=dict[Any, Callable[[], Any]])
    found: dict[Any, list[Any]] = field(default_factory=dict[Any, list[Any]])

    def add(self, key: Any, visit: Callable[[], Any]) -> None:
        self.visits[key] = visit
        self.found[key] = []

    def drop(self, key: Any) -> None:
        self.visits.pop(key, None)
        self.found.pop(key, None)


def measure(
    workload: Workload,
    backends: Sequence[str],
    loops: Sequence[int],
    repetitions: int,
    seed: int,
    progress: Progress = lambda done, total: None,
) -> list[ArmResult]:
    """Float32 of every back end at every K, at least `repetitions` timed chunks each, in the order
    given. Raises BundleError when one of them cannot run."""
    arms = [Arm(name, FP32, k, workload.steps, workload.batch) for name in backends for k in loops]
    measured = measure_arms(workload, arms, repetitions, seed, progress=progress)
    for missing in measured.missing:
        raise BundleError(missing.reason)
    return measured.results


def measure_arms(
    workload: Workload,
    arms: Sequence[Arm],
    repetitions: int,
    seed: int,
    yardsticks: Sequence[tuple[str, ChildProcess]] = (),
    progress: Progress = lambda done, total: None,
) -> Measured:
    """At least `repetitions` timed chunks of every arm that can run here, in the order given.

    `yardsticks`: children, by name, that answer `time` as a back end does, for each work there is.
    Raises BundleError where a yardstick ends by itself.
    """
    rounds = -(-repetitions // VISIT)
    with ExitStack() as stack:
        children, missing = _children(workload, arms, stack)
        turns = _Turns()
        warm: dict[Arm, tuple[float, np.ndarray]] = {}
        for arm in arms:
            child = children.get(arm.process)
            if child is None:
                continue
            try:
                warm[arm] = child.call("first", *arm.work), child.call("chunks", *arm.work)
                turns.add(arm, _visit(child, arm.work))
            except LoopditError as error:
                missing.append(Missing(*arm.process, str(error), arm.work))
        works = list(dict.fromkeys(arm.work for arm in warm))
        for name, child in yardsticks:
            for work in works:
                turns.add((name, work), _visit(child, work))
        missing += _take_turns(turns, rounds, np.random.default_rng(seed), progress)
        results: list[ArmResult] = []
        facts: dict[tuple[str, str], tuple[BackendFacts, float]] = {}
        for arm in (arm for arm in arms if arm in turns.found):
            if arm.process not in facts:
                child = children[arm.process]
                facts[arm.process] = child.call("facts"), child.call("rss_mib")
            told, rss_mib = facts[arm.process]
            first_ms, chunks = warm[arm]
            times = np.stack([times for times, _ in turns.found[arm]])
            joules = np.array([joules for _, joules in turns.found[arm]]) / VISIT
            if told.device == "cuda":  # the processor's says nothing of it
                joules = np.array([children[arm.process].call("gpu_joules", *arm.work)])
            results.append(ArmResult(arm, told, first_ms, times, joules, rss_mib, chunks))
        timed = {
            key: np.stack([times for times, _ in found])
            for key, found in turns.found.items()
            if not isinstance(key, Arm)
        }
    return Measured(results, missing, timed)


def _children(
    workload: Workload, arms: Sequence[Arm], stack: ExitStack
) -> tuple[dict[tuple[str, str], ChildProcess], list[Missing]]:
    """A process for each back end and precision that can run here, and why the others cannot."""
    children: dict[tuple[str, str], ChildProcess] = {}
    missing: list[Missing] = []
    for name, precision in dict.fromkeys(arm.process for arm in arms):
        kind = KINDS[name]
        reason = kind.unavailable()
        if reason is None and precision not in kind.precisions:
            reason = f"it has no {precision}, but {', '.join(kind.precisions)}"
        if reason is None:
            try:
                child = ChildProcess(name, TimedBackend, workload, name, precision)
                children[name, precision] = stack.enter_context(closing(child))
            except LoopditError as error:
                reason = str(error)
        if reason is not None:
            missing.append(Missing(name, precision, reason))
    return children, missing


def _visit(child: ChildProcess, work: tuple[int, int, int]) -> Callable[[], Any]:
    return lambda: child.call("time", *work, VISIT)


def _take_turns(
    turns: _Turns, rounds: int, generator: np.random.Generator, progress: Progress
) -> list[Missing]:
    """Fill `turns.found`; an arm that fails on the way is dropped, and named."""
    failed: list[Missing] = []
    total = rounds * len(turns.visits)
    for number in range(rounds):
        keys = list(turns.visits)
        for turn, index in enumerate(generator.permutation(len(keys))):
            key = keys[int(index)]
            try:
                turns.found[key].append(turns.visits[key]())
            except LoopditError as error:
                if not isinstance(key, Arm):
                    raise
                failed.append(Missing(*key.process, str(error), key.work))
                turns.drop(key)
            progress(number * len(keys) + turn + 1, total)
    return failed


def _millijoules(joules: np.ndarray) -> float | None:
    """Of one chunk: the median visit's."""
    middle = float(np.median(joules))
    return None if np.isnan(middle) else round(1e3 * middle, 3)
