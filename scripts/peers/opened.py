"""A policy of the comparison, ours or another's, as one call that makes a chunk and times it.

Shapes: H actions of a chunk, A action dim.
"""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from loopdit.datasets.spec import Observation, PolicySpec
from loopdit.deploy.client import PolicyClient
from loopdit.eval.rollouts.policies import torch_module
from loopdit.eval.rollouts.policy_sources import WIRE_SCHEMES

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
def opened(name: str) -> Generator[Opened]:
    """A server's address, or a checkpoint's folder: that one computes here, in one thread."""
    if name.startswith(WIRE_SCHEMES):
        with PolicyClient(name, timeout_s=_TIMEOUT_S) as client:
            yield Opened(client.spec, _served(client))
        return
    import torch

    from loopdit.policy.checkpoint import load_policy
    from loopdit.policy.looped_policy import DEFAULT_STEPS

    torch.set_num_threads(1)
    policy = load_policy(name)
    infer = torch_module(policy)

    def make(observation: Observation, seed: int, loops: int, steps: int) -> Made:
        began = time.perf_counter()
        answer = infer(observation, "", seed, loops, steps or DEFAULT_STEPS)
        return Made(answer.actions, time.perf_counter() - began)

    yield Opened(policy.spec, make)


def _served(client: PolicyClient) -> Callable[[Observation, int, int, int], Made]:
    def make(observation: Observation, seed: int, loops: int, steps: int) -> Made:
        reply = client.infer(observation, seed=seed, loops=loops, steps=steps)
        spent = reply.timing_us["encode"] + reply.timing_us["denoise"]
        return Made(reply.actions, spent / 1e6)

    return make
