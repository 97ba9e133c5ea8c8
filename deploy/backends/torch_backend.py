"""The bundle's weights in torch, eager on the CPU: the slow, exact one.

It runs the module that was trained, so what it computes in float32 is the reference that every
exported graph is compared with.
"""

import numpy as np
import torch

from loopdit.datasets.spec import Observation
from loopdit.deploy.backends.protocol import Context
from loopdit.deploy.backends.registry import BackendOptions
from loopdit.deploy.backends.torch_policy import denoised, step_times, torch_policy
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.policy.adaptive_depth import act_adaptively
from loopdit.policy.objectives.objective import CLEAN, Predict
from loopdit.policy.stopping_rule import StoppingRule

_CONTEXT = "context"


class TorchBackend:
    """See `Backend`."""

    name = "torch"
    device = "cpu"

    def __init__(self, bundle: Bundle, options: BackendOptions) -> None:
        self.threads = options.threads
        self.precision = options.precision
        self._bundle = bundle
        torch.set_num_threads(self.threads)  # of the whole process: torch has no narrower setting
        self._policy = torch_policy(bundle, options.precision)

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
        times = step_times(context.batch, steps, self.device)
        sample = torch.from_numpy(noise)
        return denoised(self._policy, context.tensors[_CONTEXT], sample, times).numpy()

    def adaptive_chunk(
        self,
        observation: Observation,
        loops: int,
        noise: np.ndarray,
        steps: int,
        rule: StoppingRule,
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `AdaptiveBackend`."""
        self._bundle.require_loops(loops)
        tensors = {name: torch.from_numpy(np.array(value)) for name, value in observation.items()}
        made = act_adaptively(self._policy, tensors, torch.from_numpy(noise), rule, loops, steps)
        return made.actions.numpy(), made.loops.numpy()

    @torch.no_grad()
    def predict(self, context: Context, sample: np.ndarray, level: float) -> np.ndarray:
        """See `guided.PredictingBackend`."""
        levels = torch.full((context.batch,), level)
        return self.predictor(context)(torch.from_numpy(sample), levels).numpy()

    def predictor(self, context: Context) -> Predict:
        """See `guided.DifferentiableBackend`."""
        kept = context.tensors[_CONTEXT]
        # What inference mode made cannot take part in a graph; a copy can.
        free = kept._make(None if tensor is None else tensor.clone() for tensor in kept)
        # A step that goes all the way ends at the chunk itself.
        return lambda sample, level: self._policy.denoise_step(sample, level, CLEAN - level, free)


def load(bundle: Bundle, options: BackendOptions) -> TorchBackend:
    """See `registry.Loader`."""
    return TorchBackend(bundle, options)
