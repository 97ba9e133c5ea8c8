"""Chunks that keep to what is planned already, sampled on a back end that can be asked for a step.

The steps are taken here, in float32 on the CPU: the chunk is a few hundred numbers. What the back
end is asked for is the clean chunk that a sample is on the way to, which is one denoising step that
goes all the way. So exported graphs and fused kernels are guided as they are, by `identity`; `full`
needs the gradient through the network, which the back end "torch" alone has.

Shapes: B batch, H action horizon, A action dim.
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from loopdit.deploy.backends.protocol import Backend, Context
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.errors import BundleError
from loopdit.policy.checkpoint import load_policy
from loopdit.policy.guidance import BETA, FULL, IDENTITY, guided
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.policy.objectives.flow import Flow
from loopdit.policy.objectives.gripper import gripper_mask
from loopdit.policy.objectives.objective import BCE, FLOW, Predict


@runtime_checkable
class PredictingBackend(Backend, Protocol):
    """A back end that can be asked for one step."""

    def predict(self, context: Context, sample: np.ndarray, level: float) -> np.ndarray:
        """The clean chunk that `sample` (B, H, A), at `level` in [0, 1), is on the way to.
        Normalised units."""
        ...


@runtime_checkable
class DifferentiableBackend(PredictingBackend, Protocol):
    """One whose step autograd can go through."""

    def predictor(self, context: Context) -> Predict:
        """As `predict`, of torch's tensors and open to autograd."""
        ...


class GuidedSampler:
    """Samples chunks of one bundle on one back end, pulled towards a guide.

    Raises BundleError where the policy or the back end does not allow it.
    """

    def __init__(
        self, bundle: Bundle, backend: Backend, jacobian: str = IDENTITY, beta: float = BETA
    ) -> None:
        if not isinstance(backend, PredictingBackend):
            raise BundleError(
                f"backend={backend.name} computes a chunk as a whole and cannot be guided. Use "
                f"backend=fused, onnxruntime, openvino or torch."
            )
        if jacobian == FULL and not isinstance(backend, DifferentiableBackend):
            raise BundleError(
                f"backend={backend.name} has no gradients, which guidance with jacobian={FULL} "
                f"goes by. Use backend=torch, or jacobian={IDENTITY}."
            )
        policy = load_policy(bundle.path)
        _require_flow(policy)
        self._backend = backend
        self._jacobian = jacobian
        self._beta = beta
        self._normalizer = policy.normalizer
        self._guidable = torch.ones(policy.spec.action.shape[0])
        objective = policy.config.objective
        if objective.gripper == BCE:  # open or closed: there is nothing in between to be pulled to
            self._guidable[gripper_mask(policy.spec, objective.gripper_labels)] = 0.0

    def denoise(
        self, context: Context, noise: np.ndarray, steps: int, guide: np.ndarray
    ) -> np.ndarray:
        """As `Backend.denoise`, with a guide (B, H, A + 1), see `deploy.robot.guide`."""
        told = torch.from_numpy(np.array(guide, np.float32))
        wanted = self._normalizer.chunk(told[..., :-1])
        weight = told[..., -1:] * self._guidable
        predict = guided(self._predict(context), wanted, weight, self._jacobian, self._beta)
        with torch.no_grad():
            sample = Flow().sample(predict, torch.from_numpy(np.array(noise)), steps)
            return self._normalizer.raw_chunk(sample).numpy()

    def _predict(self, context: Context) -> Predict:
        backend = self._backend
        if self._jacobian == FULL:
            assert isinstance(backend, DifferentiableBackend)
            return backend.predictor(context)
        assert isinstance(backend, PredictingBackend)
        return _on_arrays(lambda sample, level: backend.predict(context, sample, level))


def _on_arrays(predict: Callable[[np.ndarray, float], np.ndarray]) -> Predict:
    def asked(sample: Tensor, level: Tensor) -> Tensor:
        return torch.from_numpy(predict(sample.numpy(), float(level[0])))

    return asked


def _require_flow(policy: LoopedPolicy) -> None:
    kind = policy.config.objective.kind
    if kind != FLOW:
        raise BundleError(
            f"guidance needs the velocity of a flow, and this policy's objective is {kind}. Use "
            f"an execution that tells it nothing, such as tracked."
        )
    if policy.config.in_flight:
        raise BundleError(
            "guidance is for policies that are not told what is in flight, and this one is. Use "
            "execution=informed."
        )
