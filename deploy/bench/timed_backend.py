"""One back end with a stopwatch: what `latency` runs in a child process.

A chunk's time is from the observation's arrays in memory to the actions' array in memory. Where the
back end has `encode` and `denoise` apart the cut between them is noted; one that computes the whole
chunk as one thing (a captured graph, a fused kernel) has no cut, and its parts are not a number.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time

import numpy as np

from loopdit.deploy.backends import Backend, load_backend, run_chunk
from loopdit.deploy.backends.protocol import WholeChunkBackend
from loopdit.deploy.bench.energy import EnergyMeter
from loopdit.deploy.bench.gpu_energy import GpuEnergyMeter
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.deploy.bundle.probes import Probes

# Columns of a visit's times: by the clock on the wall, and of a whole chunk what it took on a core
# (of all threads of the process), which other work on the machine hardly changes.
PARTS = ("encode", "denoise", "chunk", "cpu")
WALL, CPU = "wall", "cpu"
COLUMNS = {WALL: -2, CPU: -1}  # also of what times whole chunks alone


@dataclass(frozen=True)
class Workload:
    """What every arm computes. `steps`, `batch`: where an arm names none of its own. threads: None
    is each back end's default."""

    bundle: str
    probes: Probes
    steps: int
    batch: int = 1
    threads: int | None = None


@dataclass(frozen=True)
class BackendFacts:
    """What a loaded back end says of itself; load_ms: from its name to being ready, its runtime's
    import and the check of the bundle's witness included."""

    device: str
    threads: int
    load_ms: float


class TimedBackend:
    """See the module. Raises what `load_backend` raises."""

    def __init__(self, workload: Workload, name: str, precision: str) -> None:
        bundle = Bundle.open(workload.bundle)
        began = perf_counter()
        self._backend: Backend = load_backend(bundle, name, workload.threads, precision)
        self._load_ms = 1e3 * (perf_counter() - began)
        self._probes = workload.probes
        self._meter = EnergyMeter()

    def facts(self) -> BackendFacts:
        """See `BackendFacts`."""
        return BackendFacts(self._backend.device, self._backend.threads, self._load_ms)

    def first(self, loops: int, steps: int, batch: int) -> float:
        """Milliseconds of one chunk, to be called before any other of its kind."""
        return float(self._times(0, loops, steps, batch)[COLUMNS[WALL]])

    def chunks(self, loops: int, steps: int, batch: int) -> np.ndarray:
        """Actions for every probe, (N, H, A)."""
        found: list[np.ndarray] = []
        for index in range(-(-len(self._probes) // batch)):
            observation, noise = self._probes.batch(index, batch)
            # Copied: the back end may write the next chunk into the same memory.
            found.append(run_chunk(self._backend, observation, loops, noise, steps).copy())
        return np.concatenate(found)[: len(self._probes)]

    def time(
        self, loops: int, steps: int, batch: int, repetitions: int
    ) -> tuple[np.ndarray, float]:
        """Milliseconds (repetitions, PARTS) after one chunk untimed, and joules used by them."""
        self._times(0, loops, steps, batch)  # the caches held another arm's weights
        times = np.empty((repetitions, len(PARTS)))
        self._meter.start()
        for i in range(repetitions):
            times[i] = self._times(i + 1, loops, steps, batch)
        return times, self._meter.joules()

    def gpu_joules(self, loops: int, steps: int, batch: int) -> float:
        """Joules of one chunk on the board of the first GPU, computing alone for `SECONDS`; not a
        number where it cannot be read."""
        import torch  # not before it is needed: runtimes on a CPU do without

        uuid = torch.cuda.get_device_properties(0).uuid
        meter = GpuEnergyMeter(f"GPU-{uuid}")
        return meter.joules_of_each(lambda: self._times(0, loops, steps, batch))

    def rss_mib(self) -> float:
        """Memory of this process now: its runtime, and everything that was loaded for any arm."""
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def _times(self, index: int, loops: int, steps: int, batch: int) -> np.ndarray:
        observation, noise = self._probes.batch(index, batch)
        cpu, began = process_time(), perf_counter()
        encoded = float("nan")
        if isinstance(self._backend, WholeChunkBackend):
            self._backend.chunk(observation, loops, noise, steps)
        else:
            context = self._backend.encode(observation, loops)
            encoded = perf_counter()
            self._backend.denoise(context, noise, steps)
        done = perf_counter()
        cpu = process_time() - cpu
        return 1e3 * np.array([encoded - began, done - encoded, done - began, cpu])
