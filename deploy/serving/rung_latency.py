"""What a chunk takes at each rung, before any was served: from the bundle's table of this machine,
or timed at the warm-up.

Times are seconds, each by two clocks: on the wall, and where a chunk is computed by one core the
time on that core, which other programs hardly change. Rungs and batches are compared by the fastest
of each on the latter, since what disturbs adds to a time and never takes from it; how much longer
they take on the wall is kept apart, for all of them together.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from statistics import median
from typing import Any, NamedTuple

from loopdit.deploy.serving.planner import WINDOW, ChunkTime, Latency, Rung


class Took(NamedTuple):
    """Seconds of one call, on the wall and undisturbed."""

    wall_s: float
    own_s: float


Times = Mapping[tuple[Rung, int], Sequence[Took]]
BATCHES = (2, 4, 8)
_REPETITIONS = 5
_MEASURED_ON = ("cpu", "architecture", "cores", "gpu")  # what makes it the same machine


def timed(
    compute: Callable[[Rung, int], object],
    rungs: Iterable[Rung],
    batches: Iterable[int] = (),
    own: Callable[[], float] = time.perf_counter,
) -> dict[tuple[Rung, int], list[Took]]:
    """What `compute` takes at each rung, alone and in batches, after one call that is not timed.
    They take turns, so that a disturbance falls on all alike. own: the clock for comparing."""
    work = list(product(rungs, (1, *batches)))
    for rung, batch in work:
        compute(rung, batch)
    times: dict[tuple[Rung, int], list[Took]] = {each: [] for each in work}
    for _ in range(_REPETITIONS):
        for rung, batch in work:
            began, own_began = time.perf_counter(), own()
            compute(rung, batch)
            own_s = own() - own_began
            times[rung, batch].append(Took(time.perf_counter() - began, own_s))
    return times


def latency_of(times: Times) -> Latency:
    """From what was timed: a ladder's rungs, of which the smallest K has several step counts.

    A chunk is a fixed part and one for each step. They are told apart at the smallest K, and the
    other K, timed at one step count, are taken to divide alike.
    """
    alone = {rung: fastest(found) for (rung, batch), found in times.items() if batch == 1}
    least = min(rung.loops for rung in alone)
    share = _step_share({rung.steps: s for rung, s in alone.items() if rung.loops == least})
    undisturbed: dict[tuple[int, int], ChunkTime] = {}
    for rung, seconds in alone.items():
        if (rung.loops, 1) not in undisturbed:  # the ladder has its most steps first
            undisturbed[rung.loops, 1] = _divided(seconds, rung.steps, share)
    multiples = [
        took.wall_s / undisturbed[rung.loops, 1].seconds(rung.steps)
        for (rung, batch), found in times.items()
        if batch == 1
        for took in found
    ]
    multiples.remove(max(multiples))  # as one cold call changes nothing later
    for (rung, batch), found in times.items():
        if batch > 1 and (rung.loops, batch) not in undisturbed:
            more = fastest(found) / fastest(times[rung, 1])
            one = undisturbed[rung.loops, 1]
            undisturbed[rung.loops, batch] = ChunkTime(one.fixed_s * more, one.step_s * more)
    return Latency(undisturbed, tuple(multiples))


def fastest(found: Sequence[Took]) -> float:
    """By the clock for comparing."""
    return min(took.own_s for took in found)


def recorded_latency(
    tables: Iterable[Mapping[str, Any]],
    machine: Mapping[str, Any],
    runs: Mapping[str, Any],
    loops: Iterable[int],
) -> Latency | None:
    """From a manifest's tables: the one of `machine`, its rows of what runs here (`runs`: backend,
    precision, threads) at batch 1. None where it has not every one of `loops`."""
    for table in tables:
        if any(table["machine"].get(key) != machine.get(key) for key in _MEASURED_ON):
            continue
        rows = [
            row
            for row in table["rows"]
            if row["batch"] == 1 and all(row[key] == value for key, value in runs.items())
        ]
        found = {(k, 1): _recorded([r for r in rows if r["loops"] == k]) for k in loops}
        known = {key: time for key, time in found.items() if time is not None}
        if rows and len(known) == len(found):
            half, most = (
                median(row[part] / row["min_ms"] for row in rows) for part in ("p50_ms", "p99_ms")
            )
            # The two largest are what the planner relies on, and are the last to leave its window.
            return Latency(known, (*[half] * (WINDOW - 2), most, most))
    return None


def with_batches(recorded: Latency, measured: Latency) -> Latency:
    """What was recorded, and of batches how they compared with single chunks when measured."""
    undisturbed = dict(recorded.undisturbed)
    for (loops, batch), together in measured.undisturbed.items():
        one, alone = recorded.undisturbed[loops, 1], measured.undisturbed[loops, 1]
        if batch > 1:
            more = together.seconds(1) / alone.seconds(1)
            undisturbed[loops, batch] = ChunkTime(one.fixed_s * more, one.step_s * more)
    return Latency(undisturbed, recorded.multiples)


def _recorded(rows: Sequence[Mapping[str, Any]]) -> ChunkTime | None:
    if not rows:
        return None
    by_steps = {int(row["steps"]): row["min_ms"] / 1e3 for row in rows}
    most = max(by_steps)
    if len(by_steps) > 1:
        return _divided(by_steps[most], most, _step_share(by_steps))
    (row,) = rows
    if not row.get("encode_min_ms"):  # computed as one
        return None
    parts = row["encode_min_ms"] + row["denoise_min_ms"]
    return _divided(by_steps[most], most, row["denoise_min_ms"] / parts)


def _step_share(by_steps: Mapping[int, float]) -> float:
    """The share of a chunk of the most steps that is spent in them; 0 where nothing says it."""
    most, fewest = max(by_steps), min(by_steps)
    if most == fewest:
        return 0.0
    each = (by_steps[most] - by_steps[fewest]) / (most - fewest)
    return min(max(each * most / by_steps[most], 0.0), 1.0)


def _divided(seconds: float, steps: int, share: float) -> ChunkTime:
    return ChunkTime(seconds * (1 - share), seconds * share / steps)
