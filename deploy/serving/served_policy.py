"""What the server needs of a policy: its spec, what it offers, and one call that makes a chunk.

H action horizon, A action dim. Numpy only; knows nothing of sockets, bundles or back ends.
"""

from collections.abc import Sequence
from typing import Protocol, TypeAlias, runtime_checkable

import msgspec
import numpy as np

from loopdit.datasets.spec import Observation, PolicySpec
from loopdit.deploy.serving.planner import Latency
from loopdit.errors import ServerError


class Inference(msgspec.Struct, frozen=True):
    """One action chunk, actions (H, A) float32 in raw units, and what it took to make it.

    Of a batch, the microseconds are those of the whole.
    """

    actions: np.ndarray
    loops: int
    steps: int
    encode_us: int
    denoise_us: int


class Asked(msgspec.Struct, frozen=True):
    """One observation of a batch; see `ServedPolicy.infer`."""

    observation: Observation
    seed: int
    instruction: str = ""


class InferenceFailed(ServerError):
    """The policy raised what it may not raise. The log of whoever ran it has the traceback."""


class ReplicaLost(ServerError):
    """The process that was to compute is gone. begun: it may have been computing this."""

    def __init__(self, message: str, begun: bool = True) -> None:
        super().__init__(message)
        self.begun = begun


# What came of one observation. An ObservationError says that it is the observation's fault.
Outcome: TypeAlias = Inference | Exception


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

        The arrays are read-only views of the received message, good until it is answered (they may
        lie in the memory of a client on this machine). Called from one thread at a time.
        The same arguments give the same actions; `seed` is any non-negative integer.
        """
        ...


@runtime_checkable
class PlannedPolicy(ServedPolicy, Protocol):
    """A policy whose time is known, so that depth can be chosen to meet a deadline."""

    @property
    def default_loops(self) -> int:
        """The K to run when there is time for it and nobody says another."""
        ...

    @property
    def max_steps(self) -> int | None:
        """The most denoising steps that its sampler has; None: any number."""
        ...

    @property
    def latency(self) -> Latency:
        """What its chunks take here, once it is warm."""
        ...

    @property
    def stops_early(self) -> bool:
        """Whether it can find by itself that more loops change nothing."""
        ...

    def infer_batch(
        self, asked: Sequence[Asked], *, loops: int, steps: int, may_stop: bool
    ) -> list[Outcome]:
        """What `infer` gives or raises for each. `may_stop`: with fewer loops where it
        `stops_early`, which the Inference says."""
        ...


@runtime_checkable
class Revivable(Protocol):
    """A policy in a process of its own, which may end; then calls raise or give ReplicaLost."""

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        ...

    def revive(self) -> None:
        """Start it again. Raises LoopditError where that fails; it may be tried again."""
        ...

    def close(self) -> None:
        """End it."""
        ...
