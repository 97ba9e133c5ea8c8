"""A grafted video model on torch, eager on the CPU or as CUDA graphs: the only ones that run it.

What a graft is exported as is its weights: there are no graphs of it. `encode` makes latents of the
clip and runs the transformer over them, each block K times; `denoise` is the action decoder's. On a
GPU everything after the latents is captured once for each (K, steps, batch) and replayed; where
tokens halt it runs launch by launch, since what is skipped depends on what was computed.

The GPU's half is written to torch's documented CUDA graphs and has not been run. That what is
captured asks nothing of the host is tested on the meta device.
"""

from collections import OrderedDict
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loopdit.datasets.spec import Observation
from loopdit.deploy.backends.gpu_memory import gpu_memory
from loopdit.deploy.backends.protocol import Backend, Context
from loopdit.deploy.backends.registry import BackendOptions
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.errors import BundleError
from loopdit.policy.encoders.vocabulary import INSTRUCTION
from loopdit.policy.graft.checkpoint import load_graft_checkpoint
from loopdit.policy.graft.config import TOKEN
from loopdit.policy.graft.graft_policy import GraftContext, GraftPolicy

TORCH, CUDA_GRAPH = "torch", "cuda-graph"
_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
_CONTEXT = "context"
_KEPT_GRAPHS = 8
_WARM_UPS = 3


class GraftBackend:
    """See `Backend`."""

    def __init__(
        self, bundle: Bundle, policy: GraftPolicy, options: BackendOptions, name: str
    ) -> None:
        self.name = name
        self.device = "cuda" if name == CUDA_GRAPH else "cpu"
        self.threads = options.threads
        self.precision = options.precision
        self._bundle = bundle
        if self.device == "cpu":
            torch.set_num_threads(self.threads)  # of the whole process
        if self.precision in _DTYPES:
            policy.graft.to(_DTYPES[self.precision])
            policy.encoder.to(_DTYPES[self.precision])
        with gpu_memory() if self.device == "cuda" else nullcontext():
            self.policy = policy.to(self.device)

    @torch.inference_mode()
    def encode(self, observation: Observation, loops: int) -> Context:
        """See `Backend.encode`. Raises BundleError for a K that the bundle does not offer."""
        self._bundle.require_loops(loops)
        given = self._tensors(observation)
        context = self._read(self._latents(given), given[INSTRUCTION], loops)
        if self.device == "cuda":
            torch.cuda.synchronize()  # or the time of encoding would be counted as denoising
        return Context(loops, len(given[INSTRUCTION]), {_CONTEXT: context})

    @torch.inference_mode()
    def denoise(self, context: Context, noise: np.ndarray, steps: int) -> np.ndarray:
        """See `Backend.denoise`."""
        read = context.tensors[_CONTEXT]
        sample = self.policy.sample(read, torch.from_numpy(np.array(noise)).to(self.device), steps)
        return self.policy.to_actions(sample).cpu().numpy()

    def _tensors(self, observation: Observation) -> dict[str, Tensor]:
        # Copied, because a received message is read-only memory, which torch does not know.
        read = (self.policy.camera, INSTRUCTION)
        return {n: torch.from_numpy(np.array(observation[n])).to(self.device) for n in read}

    def _latents(self, given: Mapping[str, Tensor]) -> Tensor:
        return self.policy.latents(given)

    def _read(self, latents: Tensor, task: Tensor, loops: int) -> GraftContext:
        with self._in_precision():
            return self.policy.read(self.policy.features(latents, task, loops), loops)

    def _in_precision(self) -> AbstractContextManager[Any]:
        if self.precision not in _DTYPES:
            return nullcontext()
        # Without its cache: a captured CUDA graph must own what it reads.
        dtype = _DTYPES[self.precision]
        return torch.autocast(self.device, dtype, cache_enabled=False)


class CapturedGraftBackend(GraftBackend):
    """See `WholeChunkBackend`: a chunk of one launch, after its latents."""

    def __init__(
        self, bundle: Bundle, policy: GraftPolicy, options: BackendOptions, name: str
    ) -> None:
        super().__init__(bundle, policy, options, name)
        self._graphs: OrderedDict[tuple[int, int, int], _Captured] = OrderedDict()

    @torch.inference_mode()
    def chunk(
        self, observation: Observation, loops: int, noise: np.ndarray, steps: int
    ) -> np.ndarray:
        """See `WholeChunkBackend.chunk`; the first of its (K, steps, batch) captures the graph."""
        self._bundle.require_loops(loops)
        given = self._tensors(observation)
        latents, task = self._latents(given), given[INSTRUCTION]
        drawn = torch.from_numpy(np.array(noise, np.float32)).to(self.device)
        key = (loops, steps, len(noise))
        if key not in self._graphs:
            while len(self._graphs) >= _KEPT_GRAPHS:
                self._graphs.popitem(last=False)

            def compute(latents: Tensor, task: Tensor, noise: Tensor) -> Tensor:
                read = self._read(latents, task, loops)
                return self.policy.to_actions(self.policy.sample(read, noise, steps))

            with gpu_memory():
                self._graphs[key] = _Captured(compute, (latents, task, drawn))
        self._graphs.move_to_end(key)
        return self._graphs[key](latents, task, drawn).cpu().numpy()


class _Captured:
    """A function of tensors as one CUDA graph, over inputs that stay where they are."""

    def __init__(self, function: Any, inputs: tuple[Tensor, ...]) -> None:
        self._inputs = tuple(tensor.clone() for tensor in inputs)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                function(*self._inputs)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._output = function(*self._inputs)

    def __call__(self, *inputs: Tensor) -> Tensor:
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self._graph.replay()
        return self._output


def load(name: str, bundle: Bundle, options: BackendOptions) -> Backend:
    """The back end of that name, for a bundle of a grafted video model.

    Raises BundleError for one that is not made of torch.
    """
    if name not in (CUDA_GRAPH, TORCH):
        raise BundleError(
            f"backend={name} runs exported graphs or kernels of looped policies, and "
            f"{bundle.path} is a grafted video model, whose bundle is its weights for torch "
            f"(docs/graft.md says why). Use backend={TORCH}, or {CUDA_GRAPH} on a GPU."
        )
    policy = load_graft_checkpoint(bundle.path).policy
    captured = name == CUDA_GRAPH and policy.config.graft.halting != TOKEN
    return (CapturedGraftBackend if captured else GraftBackend)(bundle, policy, options, name)
