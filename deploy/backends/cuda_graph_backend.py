"""The bundle's weights in torch on an NVIDIA GPU, a whole chunk as one CUDA graph.

A looped policy of a few megabytes is bound by launches: thousands of kernels of microseconds each.
So encode and all K x S passes of denoising are captured once for each (K, steps, batch), over
buffers that stay where they are, and replayed by a single launch. `encode` and `denoise` are there
too, eager: for measuring, and for who wants several chunks of one observation.
"""

import logging
import time
from collections import OrderedDict

import numpy as np
import torch
from torch import Tensor

from loopdit.datasets.spec import Observation
from loopdit.deploy.backends.gpu_memory import gpu_memory
from loopdit.deploy.backends.protocol import Context
from loopdit.deploy.backends.registry import BackendOptions
from loopdit.deploy.backends.torch_policy import (
    NOISE,
    denoised,
    step_times,
    torch_policy,
    whole_chunk,
)
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.errors import BundleError
from loopdit.policy.looped_policy import LoopedPolicy

logger = logging.getLogger(__name__)

_CONTEXT = "context"
_KEPT_GRAPHS = 16  # each (K, steps, batch) holds GPU memory, and a client may ask for any
_WARM_UPS = 3  # before a capture: libraries choose their kernels and take memory at first use


class CudaGraphBackend:
    """See `Backend` and `WholeChunkBackend`."""

    name = "cuda-graph"
    device = "cuda"

    def __init__(self, bundle: Bundle, options: BackendOptions) -> None:
        self.threads = options.threads
        self.precision = options.precision
        self._bundle = bundle
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
            times = step_times(context.batch, steps, self.device)
            encoded = context.tensors[_CONTEXT]
            actions = denoised(self._policy, encoded, self._on_gpu(noise), times)
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
                self._graphs[key] = _ChunkGraph(self._policy, observation, loops, noise, steps)
        self._graphs.move_to_end(key)
        return self._graphs[key](observation, noise)

    def _on_gpu(self, array: np.ndarray) -> Tensor:
        # Copied, because a received message is read-only memory, which torch does not know.
        return torch.from_numpy(np.array(array)).to(self.device)


class _ChunkGraph:
    """One captured chunk, with its input and output buffers on the GPU and in pinned memory."""

    def __init__(
        self,
        policy: LoopedPolicy,
        observation: Observation,
        loops: int,
        noise: np.ndarray,
        steps: int,
    ) -> None:
        began = time.perf_counter()
        arrays = {**observation, NOISE: np.asarray(noise, np.float32)}
        self._pinned = {n: torch.from_numpy(np.array(a)).pin_memory() for n, a in arrays.items()}
        self._given = {name: tensor.to("cuda") for name, tensor in self._pinned.items()}
        self._stream = torch.cuda.Stream()
        self._graph = torch.cuda.CUDAGraph()
        times = step_times(len(noise), steps, "cuda")
        self._stream.wait_stream(torch.cuda.current_stream())  # which made weights and times
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            for _ in range(_WARM_UPS):
                whole_chunk(policy, self._given, loops, times)
            self._stream.synchronize()
            try:
                with torch.cuda.graph(self._graph, stream=self._stream):
                    made = whole_chunk(policy, self._given, loops, times)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                raise BundleError(
                    f"this policy cannot be captured as a CUDA graph: {error} Use another backend="
                ) from error
            self._made = made
            self._actions = torch.empty(made.shape, dtype=made.dtype, pin_memory=True)
        logger.info(
            "cuda-graph: captured K = %d, %d steps, batch %d in %.1f s",
            *(loops, steps, len(noise), time.perf_counter() - began),
        )

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
    if not torch.cuda.is_available():
        raise BundleError(
            f"torch {torch.__version__} cannot use the GPU: it was built without CUDA, or for a "
            f"newer driver. Install the build for this driver, or use a CPU back end."
        )
    return CudaGraphBackend(bundle, options)
