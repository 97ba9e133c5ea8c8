"""A policy of the comparison, ours or another's, as one call that makes a chunk and times it.

Shapes: H actions of a chunk, A action dim.
"""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from standings import TORCH

from loopdit.datasets.spec import Observation, PolicySpec
from loopdit.deploy.client import PolicyClient
from loopdit.eval.rollouts.policies import Infer, torch_module
from loopdit.eval.rollouts.policy_sources import WIRE_SCHEMES
from loopdit.eval.rollouts.rollout import Answer

if TYPE_CHECKING:
    from loopdit.policy.looped_policy import LoopedPolicy

_TIMEOUT_S = 60.0


class Made(NamedTuple):
    """Raw actions (H, A), and what computing them took: without the wire of a served policy."""

    actions: np.ndarray
    seconds: float


class Opened(NamedTuple):
    """`make(observation, seed, loops, steps)`; 0 steps is the policy's default."""

    spec: PolicySpec
    make: Callable[[Observation, int, int, int], Made]


@contextmanager
def opened(name: str, backend: str = TORCH) -> Generator[Opened]:
    """A server's address, or a checkpoint's folder: that one computes here, in one thread, by torch
    or by the fused kernels. Raises BundleError where there are none for it."""
    if name.startswith(WIRE_SCHEMES):
        with PolicyClient(name, timeout_s=_TIMEOUT_S) as client:
            yield Opened(client.spec, _served(client))
        return
    import torch

    from loopdit.policy.checkpoint import load_policy
    from loopdit.policy.looped_policy import DEFAULT_STEPS

    torch.set_num_threads(1)
    policy = load_policy(name)
    infer = torch_module(policy) if backend == TORCH else _fused(policy)

    def make(observation: Observation, seed: int, loops: int, steps: int) -> Made:
        began = time.perf_counter()
        answer = infer(observation, "", seed, loops, steps or DEFAULT_STEPS)
        return Made(answer.actions, time.perf_counter() - began)

    yield Opened(policy.spec, make)


def _fused(policy: "LoopedPolicy") -> Infer:
    """What `torch_module` answers, by the kernels that serve on a CPU."""
    from loopdit.deploy.backends.fused.cpu_backend import FusedCpuBackend
    from loopdit.deploy.backends.registry import FP32
    from loopdit.deploy.serving.served_bundle import starting_noise

    kernels = FusedCpuBackend(policy, FP32, lambda loops: None)

    def infer(
        observation: Observation, instruction: str, seed: int, loops: int, steps: int
    ) -> Answer:
        batched = {name: np.asarray(value)[None] for name, value in observation.items()}
        noise = starting_noise(seed, 1, policy.horizon, policy.spec.action.shape[0])
        context = kernels.encode(batched, loops)
        return Answer(kernels.denoise(context, policy.temperature * noise, steps)[0], loops)

    return infer


def _served(client: PolicyClient) -> Callable[[Observation, int, int, int], Made]:
    def make(observation: Observation, seed: int, loops: int, steps: int) -> Made:
        reply = client.infer(observation, seed=seed, loops=loops, steps=steps)
        spent = reply.timing_us["encode"] + reply.timing_us["denoise"]
        return Made(reply.actions, spent / 1e6)

    return make
