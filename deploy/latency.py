"""Time whole action chunks, fairly: each back end in a process of its own, arms in random order.

An arm is a back end at one K. Runtimes in one process fight for cores with their thread pools
(measured: p50 up to three times worse), so each lives in a child that computes only when asked.
Arms take turns in short visits in a seeded random order, so that whatever else the machine does
falls on all alike; no sample is removed. A chunk's time is from the observation's arrays in memory
to the actions' array in memory, with the cut between `encode` and `denoise` noted.
"""

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from time import perf_counter
from typing import Any

import numpy as np

from loopdit.deploy.backends import Backend, load_backend
from loopdit.deploy.bundle import Bundle
from loopdit.deploy.parity import backend_chunks
from loopdit.deploy.probes import Probes
from loopdit.errors import BundleError, LoopditError

# Timed chunks in one visit, after one that is not timed: the caches held another arm's weights.
_VISIT = 5
_ANSWER_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Workload:
    """What every arm computes. threads: None is each back end's default."""

    bundle: str
    probes: Probes
    steps: int
    batch: int = 1
    threads: int | None = None


@dataclass(frozen=True)
class ArmResult:
    """One arm's samples: `encode_ms` and `denoise_ms` (R,), and its actions for the probes."""

    backend: str
    device: str
    precision: str
    threads: int
    loops: int
    encode_ms: np.ndarray
    denoise_ms: np.ndarray
    chunks: np.ndarray

    @property
    def chunk_ms(self) -> np.ndarray:
        """Encode and denoise together (R,)."""
        return self.encode_ms + self.denoise_ms

    def summary(self) -> dict[str, Any]:
        """The fields of a row of `bench.json` that come from timing."""
        total = self.chunk_ms
        return {
            "backend": self.backend,
            "device": self.device,
            "precision": self.precision,
            "threads": self.threads,
            "loops": self.loops,
            "p50_ms": _round(np.percentile(total, 50)),
            "p99_ms": _round(np.percentile(total, 99)),
            "min_ms": _round(total.min()),
            "max_ms": _round(total.max()),
            "encode_p50_ms": _round(np.percentile(self.encode_ms, 50)),
            "denoise_p50_ms": _round(np.percentile(self.denoise_ms, 50)),
            "repetitions": len(total),
        }


def measure(
    workload: Workload,
    backends: Sequence[str],
    loops: Sequence[int],
    repetitions: int,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[ArmResult]:
    """Every back end at every K, at least `repetitions` timed chunks each, in the order given.

    `progress` is told timed chunks done and in all. Raises BundleError when a back end cannot run.
    """
    arms = [(name, k) for name in backends for k in loops]
    visits = -(-repetitions // _VISIT)
    samples: dict[tuple[str, int], list[np.ndarray]] = {arm: [] for arm in arms}
    generator = np.random.default_rng(seed)
    with ExitStack() as stack:
        children = {
            name: stack.enter_context(closing(_BackendProcess(name, workload))) for name in backends
        }
        chunks = {arm: children[arm[0]].chunks(arm[1]) for arm in arms}  # warms every arm up, too
        for visit in range(visits):
            for turn, index in enumerate(generator.permutation(len(arms))):
                arm = arms[int(index)]
                samples[arm].append(children[arm[0]].time(arm[1], _VISIT))
                progress((visit * len(arms) + turn + 1) * _VISIT, visits * len(arms) * _VISIT)
        found: list[ArmResult] = []
        for name, k in arms:
            encode_ms, denoise_ms = np.concatenate(samples[name, k]).T
            facts = children[name].facts
            found.append(ArmResult(name, *facts, k, encode_ms, denoise_ms, chunks[name, k]))
    return found


class _BackendProcess:
    """One back end in a child process, which computes only while a call to it waits."""

    def __init__(self, backend: str, workload: Workload) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would share the runtimes' threads
        self._backend = backend
        self._connection, remote = context.Pipe()
        self._process = context.Process(target=_child, args=(remote, backend, workload))
        self._process.daemon = True
        self._process.start()
        remote.close()
        try:
            self.facts: tuple[str, str, int] = self._answer()
        except BaseException:
            self.close()
            raise

    def chunks(self, loops: int) -> np.ndarray:
        """Actions for every probe, (N, H, A)."""
        return self._call("chunks", loops)

    def time(self, loops: int, repetitions: int) -> np.ndarray:
        """Milliseconds of encode and denoise, (repetitions, 2), after one chunk untimed."""
        return self._call("time", loops, repetitions)

    def close(self) -> None:
        """End the child; it exits by itself when its pipe closes."""
        self._connection.close()
        self._process.join(timeout=5)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()

    def _call(self, *request: Any) -> Any:
        self._connection.send(request)
        return self._answer()

    def _answer(self) -> Any:
        try:
            if not self._connection.poll(_ANSWER_TIMEOUT_S):
                raise BundleError(
                    f"the {self._backend} process did not answer in {_ANSWER_TIMEOUT_S:g} s. "
                    f"Leave it out of backends=, or give the machine some quiet."
                )
            answer = self._connection.recv()
        except (EOFError, ConnectionResetError) as error:
            self._process.join(timeout=5)
            raise BundleError(
                f"the {self._backend} process ended by itself (exit status "
                f"{self._process.exitcode}; what it printed stands above). "
                f"Leave it out of backends=, or free some memory."
            ) from error
        if isinstance(answer, LoopditError):
            raise answer
        return answer


def _child(connection: Connection, name: str, workload: Workload) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is the parent's to handle
    try:
        backend = load_backend(Bundle.open(workload.bundle), name, workload.threads)
        connection.send((backend.device, backend.precision, backend.threads))
        while True:
            try:
                request = connection.recv()
            except EOFError:
                return
            if request[0] == "chunks":
                answer = backend_chunks(
                    backend, workload.probes, request[1], workload.steps, workload.batch
                )
            else:
                answer = _time_chunks(backend, workload, *request[1:])
            connection.send(answer)
    except LoopditError as error:
        connection.send(error)
    except BrokenPipeError:
        return  # the parent was stopped: nobody is left to answer


def _time_chunks(backend: Backend, workload: Workload, loops: int, repetitions: int) -> np.ndarray:
    times = np.empty((repetitions, 2))
    for i in range(-1, repetitions):
        observation, noise = workload.probes.batch(i + 1, workload.batch)
        began = perf_counter()
        context = backend.encode(observation, loops)
        encoded = perf_counter()
        backend.denoise(context, noise, workload.steps)
        done = perf_counter()
        if i >= 0:
            times[i] = 1e3 * (encoded - began), 1e3 * (done - encoded)
    return times


def _round(milliseconds: Any) -> float:
    return round(float(milliseconds), 4)
