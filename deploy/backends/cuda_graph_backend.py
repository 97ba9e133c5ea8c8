"""The bundle's weights in torch on an NVIDIA GPU, a whole chunk as one CUDA graph.

A looped policy of a few megabytes is bound by launches: thousands of kernels of microseconds each.
So encode and all K x S passes of denoising are captured once for each (K, steps, batch), over
buffers that stay where they are, and replayed by a single launch. `encode` and `denoise` are there
too, eager: for measuring, and for who wants several chunks of one observation.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from loopdit.datasets.spec import Observation
from loopdit.deploy.backends.gpu_memory import gpu_memory
from loopdit.deploy.backends.protocol import Context
from loopdit.deploy.backends.registry import BackendOptions
from loopdit.deploy.backends.torch_policy import (
    NOISE,
    Denoise,
    StepByStep,
    torch_policy,
    whole_chunk,
)
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.errors import BundleError

logger = logging.getLogger(__name__)

_CONTEXT = "context"
_KEPT_GRAPHS = 64  # each (K, steps, batch) holds GPU memory, and a client may ask for any
_WARM_UPS = 3  # before a capture: libraries choose their kernels and take memory at first use


class CudaGraphBackend:
    """See `Backend` and `WholeChunkBackend`. `denoise` computes on the GPU, and can be captured."""

    device = "cuda"

    def __init__(
        self, bundle: Bundle, options: BackendOptions, name: str, denoise: Denoise
    ) -> None:
        self.name = name
        self.threads = options.threads
        self.precision = options.precision
        self._bundle = bundle
        self._denoise = denoise
        # Of the whole process: float32 means float32, and not the 10 bits of TF32.
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        with gpu_memory():
            self._policy = torch_policy(bundle, options.precision, self.device)
        self._graphs: OrderedDict[tuple[int, int, int], _ChunkGraph] = OrderedDict()

    @torch.inference_mode()
    def encode(self, observation: Observation, loops: int) -> Context:
        """See `Backend.encode`. Raises BundleError for a K that was not exported."""
        self._bundle.require_loops(loops)
        with gpu_memory():
            tensors = {name: self._on_gpu(value) for name, value in observation.items()}
            context = self._policy.encode(tensors, loops)
            torch.cuda.synchronize()  # or the time of encoding would be counted as denoising
        return Context(loops, len(next(iter(tensors.values()))), {_CONTEXT: context})

    @torch.inference_mode()
    def denoise(self, context: Context, noise: np.ndarray, steps: int) -> np.ndarray:
        """See `Backend.denoise`."""
        with gpu_memory():
            prepared = self._denoise.prepared(context.batch, steps)
            encoded = context.tensors[_CONTEXT]
            actions = self._denoise(self._policy, encoded, self._on_gpu(noise), prepared)
            return actions.cpu().numpy()

    def chunk(
        self, observation: Observation, loops: int, noise: np.ndarray, steps: int
    ) -> np.ndarray:
        """See `WholeChunkBackend.chunk`; the first of its (K, steps, batch) captures the graph."""
        key = (loops, steps, len(noise))
        if key not in self._graphs:
            self._bundle.require_loops(loops)
            while len(self._graphs) >= _KEPT_GRAPHS:
                self._graphs.popitem(last=False)
            with gpu_memory():
                prepared = self._denoise.prepared(len(noise), steps)

                def compute(given: Mapping[str, Tensor]) -> Tensor:
                    return whole_chunk(self._policy, given, loops, prepared, self._denoise)

                arrays = {**observation, NOISE: np.asarray(noise, np.float32)}
                began = time.perf_counter()
                self._graphs[key] = _ChunkGraph(compute, arrays)
            logger.info(
                "%s: captured K = %d, %d steps, batch %d in %.1f s",
                *(self.name, *key, time.perf_counter() - began),
            )
        self._graphs.move_to_end(key)
        return self._graphs[key](observation, noise)

    def _on_gpu(self, array: np.ndarray) -> Tensor:
        # Copied, because a received message is read-only memory, which torch does not know.
        return torch.from_numpy(np.array(array)).to(self.device)


class _ChunkGraph:
    """One captured chunk, with its input and output buffers on the GPU and in pinned memory.

    compute: from tensors on the GPU, by their names, to actions there. arrays: an example of them.
    """

    def __init__(
        self,
        compute: Callable[[Mapping[str, Tensor]], Tensor],
        arrays: Mapping[str, np.ndarray],
    ) -> None:
        self._compute = compute  # with what the graph reads
        self._pinned = {n: torch.from_numpy(np.array(a)).pin_memory() for n, a in arrays.items()}
        self._given = {name: tensor.to("cuda") for name, tensor in self._pinned.items()}
        self._stream = torch.cuda.Stream()
        self._graph = torch.cuda.CUDAGraph()
        self._stream.wait_stream(torch.cuda.current_stream())  # which made weights and the rest
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            for _ in range(_WARM_UPS):
                compute(self._given)
            self._stream.synchronize()
            try:
                # Another thread may be serving an older policy meanwhile (a reload).
                with torch.cuda.graph(
                    self._graph, stream=self._stream, capture_error_mode="thread_local"
                ):
                    made = compute(self._given)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                raise BundleError(
                    f"this policy cannot be captured as a CUDA graph: {error} Use another backend="
                ) from error
            self._made = made
            self._actions = torch.empty(made.shape, dtype=made.dtype, pin_memory=True)

    def __call__(self, observation: Observation, noise: np.ndarray) -> np.ndarray:
        arrays = {**observation, NOISE: noise}
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            for name, buffer in self._given.items():
                np.copyto(self._pinned[name].numpy(), arrays[name])
                buffer.copy_(self._pinned[name], non_blocking=True)
            self._graph.replay()
            self._actions.copy_(self._made, non_blocking=True)
            self._stream.synchronize()
        return self._actions.numpy().copy()


def load(bundle: Bundle, options: BackendOptions) -> CudaGraphBackend:
    """See `registry.Loader`."""
    require_cuda()
    return CudaGraphBackend(bundle, options, "cuda-graph", StepByStep("cuda"))


def require_cuda() -> None:
    """Raise BundleError, with the remedy, where torch cannot use the GPU."""
    if not torch.cuda.is_available():
        raise BundleError(
            f"torch {torch.__version__} cannot use the GPU: it was built without CUDA, or for a "
            f"newer driver. Install the build for this driver, or use a CPU back end."
        )
