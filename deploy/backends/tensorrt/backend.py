"""The back end: a bundle's graphs as engines, one pair for each K and batch size.

Not yet run on a GPU; the tests run it on the CPU, with ONNX Runtime in place of the engines.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from loopdit.datasets.spec import Observation
from loopdit.deploy.backends.gpu_memory import gpu_memory
from loopdit.deploy.backends.protocol import Context
from loopdit.deploy.backends.registry import BackendOptions
from loopdit.deploy.backends.tensorrt.engine import Execution
from loopdit.deploy.backends.tensorrt.policy_run import Place, PolicyRun, WholeChunk, step_times
from loopdit.deploy.backends.tensorrt.static_graph import StaticGraph, read_static_graph
from loopdit.deploy.bundle.bundle import Bundle

_KEPT_CHUNKS = 16  # each (K, steps, batch) holds GPU memory, and a client may ask for any


class TensorRTBackend:
    """See `Backend` and `WholeChunkBackend`.

    ready: makes an execution of a graph. fused: makes the graph of all denoising steps at (K,
    batch), for the bundle's own number of them; None where every step is a run of its engine.
    """

    def __init__(
        self,
        bundle: Bundle,
        options: BackendOptions,
        name: str,
        ready: Callable[[StaticGraph], Execution],
        place: Place,
        fused: Callable[[int, int], StaticGraph] | None = None,
    ) -> None:
        self.name = name
        self.device = place.device.type
        self.precision = options.precision
        self.threads = options.threads
        self._bundle = bundle
        self._ready = ready
        self._place = place
        self._fused = fused
        self._runs: dict[tuple[int, int, bool], PolicyRun] = {}
        self._chunks: OrderedDict[tuple[int, int, int], WholeChunk] = OrderedDict()

    def encode(self, observation: Observation, loops: int) -> Context:
        """See `Backend.encode`. Raises BundleError for a K that was not exported."""
        batch = _batch(observation)
        with gpu_memory(), self._place.current():
            run = self._run(loops, self._bundle.steps, batch)
            given = {name: self._placed(observation[name]) for name in run.given}
            return Context(loops, batch, run.context(given))

    def denoise(self, context: Context, noise: np.ndarray, steps: int) -> np.ndarray:
        """See `Backend.denoise`."""
        with gpu_memory(), self._place.current():
            run = self._run(context.loops, steps, context.batch)
            times = step_times(context.batch, steps, self._place)
            return run.actions(context.tensors, self._placed(noise), times).cpu().numpy()

    def chunk(
        self, observation: Observation, loops: int, noise: np.ndarray, steps: int
    ) -> np.ndarray:
        """See `WholeChunkBackend.chunk`."""
        key = (loops, steps, _batch(observation))
        if key not in self._chunks:
            if len(self._chunks) >= _KEPT_CHUNKS:
                self._chunks.popitem(last=False)
            with gpu_memory():
                # Executions of its own: a CUDA graph holds on to the memory they work in.
                self._chunks[key] = WholeChunk(self._make_run(*key), steps)
        self._chunks.move_to_end(key)
        with gpu_memory():
            return self._chunks[key](observation, noise)

    def _placed(self, array: np.ndarray) -> Tensor:
        # Copied, because a received message is read-only memory, which torch does not know.
        return torch.from_numpy(np.array(array, order="C")).to(self._place.device)

    def _run(self, loops: int, steps: int, batch: int) -> PolicyRun:
        key = (loops, batch, self._is_fused(steps))
        if key not in self._runs:
            self._runs[key] = self._make_run(loops, steps, batch)
        return self._runs[key]

    def _is_fused(self, steps: int) -> bool:
        return self._fused is not None and steps == self._bundle.steps

    def _make_run(self, loops: int, steps: int, batch: int) -> PolicyRun:
        self._bundle.require_loops(loops)
        self._bundle.require_unchanged()  # else one K would act by other weights than another
        if self._fused is not None and self._is_fused(steps):
            denoise = self._fused(loops, batch)
        else:
            denoise = self._graph("denoise", loops, batch)
        encode = self._ready(self._graph("encode", loops, batch))
        return PolicyRun(encode, self._ready(denoise), self._place)

    def _graph(self, kind: str, loops: int, batch: int) -> StaticGraph:
        path = self._bundle.graph(kind, loops, self.precision)
        digests = {name: entry.sha256 for name, entry in self._bundle.files.items()}
        return read_static_graph(path, batch, digests)


def _batch(observation: Mapping[str, np.ndarray]) -> int:
    return len(next(iter(observation.values())))
