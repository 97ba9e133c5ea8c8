"""What the server needs of a policy: its spec, what it offers, and one call that makes a chunk.

H action horizon, A action dim. Numpy only; knows nothing of sockets, bundles or back ends.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from loopdit.datasets.spec import Observation, PolicySpec


@dataclass(frozen=True)
class Inference:
    """One action chunk, actions (H, A) float32 in raw units, and what it took to make it."""

    actions: np.ndarray
    loops: int
    steps: int
    encode_us: int
    denoise_us: int


class ServedPolicy(Protocol):
    """A policy behind a server. `loops` are the loop counts it offers, `steps` its default."""

    @property
    def spec(self) -> PolicySpec:
        """What it observes and commands."""
        ...

    @property
    def model_id(self) -> str:
        """Identifies the weights: equal only for equal policies."""
        ...

    @property
    def horizon(self) -> int:
        """Actions in a chunk."""
        ...

    @property
    def loops(self) -> tuple[int, ...]:
        """The loop counts it can be asked for, ascending."""
        ...

    @property
    def steps(self) -> int:
        """Denoising steps when nobody says."""
        ...

    def infer(
        self, observation: Observation, *, seed: int, loops: int, steps: int, instruction: str = ""
    ) -> Inference:
        """One chunk for one observation (no batch axis), already checked against the spec, whose
        shapes have the policy's history in them. A policy of one task ignores the instruction;
        another raises ObservationError for one that it cannot understand.

        The arrays are read-only views of the received message. Called from one thread at a time.
        The same arguments give the same actions; `seed` is any non-negative integer.
        """
        ...
