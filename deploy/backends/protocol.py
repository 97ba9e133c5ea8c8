"""What every back end is: a bundle's policy, ready to run, raw units at both ends.

Shapes: B batch, H horizon, A action dim. Knows no runtime, and nothing of how one is chosen.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from loopdit.datasets.spec import Observation
from loopdit.policy.stopping_rule import StoppingRule


@dataclass(frozen=True)
class Context:
    """What `encode` leaves for `denoise`, in the memory of its back end: keys and values, and what
    else that takes by its name.

    Only the back end that made it can read it.
    """

    loops: int
    batch: int
    tensors: Mapping[str, Any]


class Backend(Protocol):
    """A policy ready to run, raw units at both ends. Not for two threads at once."""

    @property
    def name(self) -> str:
        """One of BACKEND_NAMES."""
        ...

    @property
    def device(self) -> str:
        """Where it computes: "cpu" or "cuda"."""
        ...

    @property
    def precision(self) -> str:
        """What it computes in, as it was asked for: "fp32", "fp16", "bf16" or "int8"."""
        ...

    @property
    def threads(self) -> int:
        """How many CPU threads share one operation."""
        ...

    def encode(self, observation: Observation, loops: int) -> Context:
        """Each tensor (B, ...) as the spec declares it, K = `loops`; once for an observation."""
        ...

    def denoise(self, context: Context, noise: np.ndarray, steps: int) -> np.ndarray:
        """Noise (B, H, A) float32 -> actions (B, H, A) float32, in `steps` Euler steps."""
        ...


@runtime_checkable
class WholeChunkBackend(Backend, Protocol):
    """A back end that is faster when it computes encode and denoise as one thing."""

    def chunk(
        self, observation: Observation, loops: int, noise: np.ndarray, steps: int
    ) -> np.ndarray:
        """What `denoise` gives for what `encode` gives: actions (B, H, A) float32."""
        ...


@runtime_checkable
class AdaptiveBackend(Backend, Protocol):
    """A back end that can look at a chunk after each loop, and stop."""

    def adaptive_chunk(
        self,
        observation: Observation,
        loops: int,
        noise: np.ndarray,
        steps: int,
        rule: StoppingRule,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Actions (B, H, A) float32, and the loops (B,) that each took: at most K = `loops`."""
        ...


def run_chunk(
    backend: Backend, observation: Observation, loops: int, noise: np.ndarray, steps: int
) -> np.ndarray:
    """Observation and noise (B, H, A) -> actions (B, H, A), by the back end's shortest way."""
    if isinstance(backend, WholeChunkBackend):
        return backend.chunk(observation, loops, noise, steps)
    return backend.denoise(backend.encode(observation, loops), noise, steps)
