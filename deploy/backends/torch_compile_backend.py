"""The bundle's weights in torch, compiled for this CPU by torch.compile.

It compiles `encode` and a denoising step for each K at their first use, once for a batch of one
and once for all larger ones, and says so in the log: each takes half a minute or more. The code is
kept in torch's own cache on disk, so that the next process takes seconds.
"""

import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch._dynamo as dynamo
from torch._dynamo.exc import TorchDynamoException

from loopdit.datasets.spec import Observation
from loopdit.deploy.backends.protocol import Context
from loopdit.deploy.backends.registry import BackendOptions
from loopdit.deploy.backends.torch_policy import torch_policy
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.errors import BundleError

logger = logging.getLogger(__name__)

_CONTEXT = "context"
# torch gives up on a function that it compiled so often, for each of (K, one or many).
_MOST_COMPILED = 64


class TorchCompileBackend:
    """See `Backend`. compiler: what torch makes code with; "eager" makes none, for tests."""

    name = "torch-compile"
    device = "cpu"

    def __init__(self, bundle: Bundle, options: BackendOptions, compiler: str = "inductor") -> None:
        self.threads = options.threads
        self.precision = options.precision
        self._bundle = bundle
        torch.set_num_threads(self.threads)  # of the whole process: torch has no narrower setting
        dynamo.config.recompile_limit = _MOST_COMPILED
        self._policy = torch_policy(bundle, options.precision)
        # One graph each: a break in it would be an error, and not a slower policy.
        self._encode = torch.compile(self._policy.encode, fullgraph=True, backend=compiler)
        self._step = torch.compile(self._policy.denoise_step, fullgraph=True, backend=compiler)
        self._compiled: set[tuple[str, int, bool]] = set()

    @torch.no_grad()
    def encode(self, observation: Observation, loops: int) -> Context:
        """See `Backend.encode`. Raises BundleError for a K that was not exported."""
        self._bundle.require_loops(loops)
        # Copied, because a received message is read-only memory, which torch does not know.
        tensors = {name: torch.from_numpy(np.array(value)) for name, value in observation.items()}
        batch = len(next(iter(tensors.values())))
        for tensor in tensors.values():
            _free_batch(tensor)
        context = self._call("encode", loops, batch, self._encode, tensors, loops)
        return Context(loops, batch, {_CONTEXT: context})

    @torch.no_grad()
    def denoise(self, context: Context, noise: np.ndarray, steps: int) -> np.ndarray:
        """See `Backend.denoise`."""
        encoded = context.tensors[_CONTEXT]
        for tensor, axis in ((encoded.keys, 1), (encoded.values, 1), (encoded.mask, 0)):
            _free_batch(tensor, axis)
        _free_batch(encoded.committed)
        sample, dt = torch.from_numpy(np.array(noise)), torch.full((context.batch,), 1 / steps)
        for i in range(steps):
            t = torch.full((context.batch,), i / steps)
            for tensor in (sample, t, dt):
                _free_batch(tensor)
            loops, batch = context.loops, context.batch
            sample = self._call("a step", loops, batch, self._step, sample, t, dt, encoded)
        return self._policy.to_actions(sample).numpy()

    def _call(
        self, what: str, loops: int, batch: int, compiled: Callable[..., Any], *arguments: Any
    ) -> Any:
        """Call it, and say so where that compiles it first."""
        key = (what, loops, batch > 1)
        if key in self._compiled:
            return compiled(*arguments)
        of = "batches of several" if batch > 1 else "a batch of one"
        logger.warning("torch-compile: compiling %s at K = %d for %s", what, loops, of)
        began = time.perf_counter()
        try:
            result = compiled(*arguments)
        except TorchDynamoException as error:
            raise BundleError(
                f"torch {torch.__version__} cannot compile {what} at K={loops}: {error} "
                f"Use backend=torch, or another version of torch."
            ) from error
        self._compiled.add(key)
        logger.warning("torch-compile: that took %.0f s", time.perf_counter() - began)
        return result


def _free_batch(tensor: torch.Tensor | None, axis: int = 0) -> None:
    """Tell the compiler that the batch may be of any size; one is a case of its own to it."""
    if tensor is not None and tensor.shape[axis] > 1:
        dynamo.mark_dynamic(tensor, axis)


def load(bundle: Bundle, options: BackendOptions) -> TorchCompileBackend:
    """See `registry.Loader`."""
    return TorchCompileBackend(bundle, options)
