"""Round trips over several transports, their turns interleaved in one run.

What else the machine does then falls on all of them alike; only ratios of one run mean anything.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from loopdit.datasets.spec import Observation
from loopdit.deploy.bench.transport.peers import PEERS
from loopdit.deploy.bench.transport.workload import CHUNK, observations
from loopdit.errors import ServerError

# Untimed round trips at the head of each turn: the first ones find cold caches.
_UNTIMED = 5
_FRAMES = 16  # different observations


@dataclass
class Samples:
    """Round trips in microseconds, by transport; `missing` says why one has none."""

    back_to_back: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    paced: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    what: dict[str, str] = field(default_factory=dict[str, str])
    missing: dict[str, str] = field(default_factory=dict[str, str])


def measure(
    names: Sequence[str], requests: int, paced: int, rate_hz: float, turn: int, seed: int
) -> Samples:
    """`requests` of each back to back in turns of `turn`, then `paced` of each at `rate_hz`.

    Raises ServerError for a server that does not start or answers wrongly.
    """
    samples = Samples()
    random = np.random.default_rng(seed)
    with ExitStack() as open_things:
        calls: dict[str, Callable[[Observation], np.ndarray]] = {}
        for name in names:
            peer = PEERS[name]()
            samples.what[name] = peer.what
            why = peer.missing()
            if why:
                samples.missing[name] = why
                continue
            folder = Path(open_things.enter_context(TemporaryDirectory(prefix="transport-")))
            peer.prepare(folder)
            address = _start(name, folder, open_things)
            calls[name] = peer.connect(folder, address, open_things)
        seen = observations(_FRAMES, seed)
        _take_turns(calls, seen, turn, turn, 0.0, random)  # warm: thrown away
        samples.back_to_back = _take_turns(calls, seen, requests, turn, 0.0, random)
        if paced:
            samples.paced = _take_turns(calls, seen, paced, turn, 1 / rate_hz, random)
    return samples


def _start(name: str, folder: Path, open_things: ExitStack) -> str:
    command = [sys.executable, "-m", "loopdit.deploy.bench.transport.peers", name, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    open_things.callback(_end, process)
    assert process.stdout is not None  # it is a pipe
    address = process.stdout.readline().strip()
    if not address:
        raise ServerError(f"the server of {name} did not start; what it said is above.")
    return address


def _end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()


def _take_turns(
    calls: dict[str, Callable[[Observation], np.ndarray]],
    seen: Sequence[Observation],
    requests: int,
    turn: int,
    period_s: float,
    random: np.random.Generator,
) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    while any(len(times) < requests for times in taken.values()):
        random.shuffle(order)
        for name in order:
            count = min(turn, requests - len(taken[name]))
            times = _one_turn(name, calls[name], seen, count + _UNTIMED, period_s)
            taken[name] += times[_UNTIMED:]
    return taken


def _one_turn(
    name: str,
    call: Callable[[Observation], np.ndarray],
    seen: Sequence[Observation],
    count: int,
    period_s: float,
) -> list[float]:
    times: list[float] = []
    due_s = time.perf_counter()
    for index in range(count):
        if period_s:
            due_s += period_s
            time.sleep(max(0.0, due_s - time.perf_counter()))
        began_ns = time.perf_counter_ns()
        chunk = call(seen[index % len(seen)])
        times.append((time.perf_counter_ns() - began_ns) / 1e3)
        if chunk.shape != CHUNK or chunk.any():
            raise ServerError(f"the server of {name} answered {chunk.shape}, not zeros {CHUNK}.")
    return times
