"""The bundle's weights in torch, eager float32 on the CPU: the slow, exact one.

It runs the module that was trained, so what it computes is the reference that every exported graph
is compared with.
"""

import numpy as np
import torch

from loopdit.datasets.spec import Observation
from loopdit.deploy.backends import Context
from loopdit.deploy.bundle import Bundle
from loopdit.policy.checkpoint import load_policy

_CONTEXT = "context"


class TorchBackend:
    """See `Backend`."""

    name = "torch"
    device = "cpu"
    precision = "fp32"

    def __init__(self, bundle: Bundle, threads: int) -> None:
        self.threads = threads
        self._bundle = bundle
        torch.set_num_threads(threads)  # of the whole process: torch has no narrower setting
        self._policy = load_policy(bundle.path)

    @torch.inference_mode()
    def encode(self, observation: Observation, loops: int) -> Context:
        """See `Backend.encode`. Raises BundleError for a K that was not exported."""
        self._bundle.require_loops(loops)
        # Copied, because a received message is read-only memory, which torch does not know.
        tensors = {name: torch.from_numpy(np.array(value)) for name, value in observation.items()}
        context = self._policy.encode(tensors, loops)
        return Context(loops, len(next(iter(tensors.values()))), {_CONTEXT: context})

    @torch.inference_mode()
    def denoise(self, context: Context, noise: np.ndarray, steps: int) -> np.ndarray:
        """See `Backend.denoise`."""
        encoded = context.tensors[_CONTEXT]
        sample = torch.from_numpy(noise)
        dt = torch.full((context.batch,), 1 / steps)
        for i in range(steps):
            t = torch.full((context.batch,), i / steps)
            sample = self._policy.denoise_step(sample, t, dt, encoded)
        return self._policy.to_actions(sample).numpy()
