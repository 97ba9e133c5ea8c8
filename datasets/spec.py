"""What a policy is given and what it commands: names, shapes, dtypes, units, limits, rate.

Written once by whoever makes the data, stored with it, copied into the checkpoint, the bundle and
the server's welcome, and compared at each of those borders. Numpy only: the robot imports this.

An observation is a flat dict from tensor name to array: `images.<camera>` (H, W, 3) uint8 RGB,
`proprio` (P,) float32. The instruction (a string) travels beside it. An action is (A,) float32.
A policy with history is given the last O observations in one: each tensor then has a leading axis
O, the oldest first. One that knows what is in flight is given `committed` besides: the actions
that will be executed before its chunk can be there (`deploy/robot/committed.py`). Environments and
episode stores have neither: `recorded` is what a policy's spec has in common with theirs.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from loopdit.datasets.tensor_spec import IMAGE_PREFIX as IMAGE_PREFIX
from loopdit.datasets.tensor_spec import TensorSpec, tensor_from, typed
from loopdit.errors import ObservationError, SpecMismatch

SPEC_VERSION = 1
PROPRIO = "proprio"
COMMITTED = "committed"

# Where the first action of a chunk belongs: to the step of the observation (where the chunk of a
# policy that is given committed actions begins with those), or to the step after them.
FROM_OBSERVATION, FROM_COMMITTED = "observation", "committed"

Observation = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class PolicySpec:
    """The border between a robot (or simulator) and a policy.

    `action_frame` says in words what the numbers of an action are relative to.
    `control_period_s` is the time between two actions. `history` is how many observations a policy
    is given, O; above 1 it is the leading axis of every observation's shape but `committed`'s.
    `chunk_from` is FROM_OBSERVATION or FROM_COMMITTED. `optional` names the cameras that a policy
    can do without: an observation that lacks one leaves out its key, and has one camera at least.
    """

    observations: tuple[TensorSpec, ...]
    action: TensorSpec
    action_frame: str
    control_period_s: float
    version: int = SPEC_VERSION
    history: int = 1
    chunk_from: str = FROM_OBSERVATION
    optional: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.history < 1:
            raise ValueError(f"history is {self.history}; it must be at least 1.")
        if self.chunk_from not in (FROM_OBSERVATION, FROM_COMMITTED):
            raise ValueError(f"chunk_from is {self.chunk_from!r}")
        if self.chunk_from == FROM_COMMITTED and self.committed is None:
            raise ValueError(f"chunk_from is {self.chunk_from!r} and nothing is {COMMITTED}")
        if self.committed is not None:
            self._require_committed(self.committed)
        for name in self.optional:
            if name not in [camera.name for camera in self.cameras]:
                raise ValueError(f"{name!r} is optional and no camera")
        for tensor in self._observed if self.history > 1 else ():
            if len(tensor.shape) < 2 or tensor.shape[0] != self.history:
                raise ValueError(
                    f"{tensor.name} has shape {tensor.shape}; its first axis must be the history, "
                    f"{self.history}."
                )

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """All that a step has: the observations, then the action."""
        return (*self.observations, self.action)

    @property
    def cameras(self) -> tuple[TensorSpec, ...]:
        """The image observations, in their declared order."""
        return tuple(t for t in self.observations if t.is_image)

    @property
    def proprio(self) -> TensorSpec:
        """The proprioception vector."""
        return next(t for t in self.observations if t.name == PROPRIO)

    @property
    def committed(self) -> TensorSpec | None:
        """The tensor (D, A + 1) of the actions in flight, None where the policy is given none."""
        return next((t for t in self.observations if t.name == COMMITTED), None)

    @property
    def max_committed(self) -> int:
        """How many actions in flight the policy can be told of, D; 0 where it is told of none."""
        return 0 if self.committed is None else self.committed.shape[0]

    @property
    def recorded(self) -> "PolicySpec":
        """What environments and episode stores have of this spec: single observations of theirs,
        and nothing that only a policy is told."""
        return replace(self.without_committed().without_history(), optional=())

    def with_optional_cameras(self) -> "PolicySpec":
        """The spec of a policy that can do without any of its cameras, though not without all."""
        return replace(self, optional=tuple(camera.name for camera in self.cameras))

    def with_history(self, steps: int) -> "PolicySpec":
        """The spec of a policy that is given the last `steps` of these single observations.

        Raises ValueError for one that has a history already.
        """
        if self.history != 1:
            raise ValueError(f"this spec has a history of {self.history} already.")
        return self._observing(steps, lambda shape: (steps, *shape)) if steps > 1 else self

    def without_history(self) -> "PolicySpec":
        """The same with single observations."""
        return self._observing(1, lambda shape: shape[1:]) if self.history > 1 else self

    def with_committed(self, steps: int, chunk_from: str = FROM_OBSERVATION) -> "PolicySpec":
        """The spec of a policy that is told of up to `steps` actions in flight, D; of none with 0.

        Raises ValueError for one that is told already.
        """
        if self.committed is not None:
            raise ValueError(f"this spec has {self.max_committed} committed actions already.")
        if steps == 0:
            return self
        labels, units = self.action.labels, self.action.units
        tensor = TensorSpec(
            COMMITTED,
            (steps, self.action.shape[-1] + 1),
            "float32",
            labels=(*labels, COMMITTED) if labels else (),
            units=(*units, "1") if units else (),
        )
        return replace(self, observations=(*self.observations, tensor), chunk_from=chunk_from)

    def without_committed(self) -> "PolicySpec":
        """The same of a policy that is told nothing of what is in flight."""
        if self.committed is None:
            return self
        return replace(self, observations=self._observed, chunk_from=FROM_OBSERVATION)

    @property
    def _observed(self) -> tuple[TensorSpec, ...]:
        return tuple(t for t in self.observations if t.name != COMMITTED)

    def _observing(
        self, history: int, change: Callable[[tuple[int, ...]], tuple[int, ...]]
    ) -> "PolicySpec":
        """The same with another history: `change` is done to the shape of what is observed."""
        changed = tuple(
            t if t.name == COMMITTED else replace(t, shape=change(t.shape))
            for t in self.observations
        )
        return replace(self, observations=changed, history=history)

    def _require_committed(self, tensor: TensorSpec) -> None:
        wanted = (*tensor.shape[:1], self.action.shape[-1] + 1)
        if tensor.shape != wanted or tensor.dtype != "float32" or tensor.shape[0] < 1:
            raise ValueError(
                f"{COMMITTED} is {tensor.shape} {tensor.dtype}; it must be (D, "
                f"{self.action.shape[-1] + 1}) float32 with D of at least 1."
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` reads it back. What only some policies have is left out
        where it says nothing: specs from before there was any stay the same."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return {k: v for k, v in plain.items() if k not in _OPTIONAL or v != _OPTIONAL[k]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "PolicySpec":
        """Read what `to_dict` wrote. Raises SpecMismatch for another version or missing fields."""
        if not isinstance(data, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] - it was read from a file
            raise SpecMismatch(f"unreadable spec: {data!r:.60} is not a mapping.")
        found = data.get("version")
        if found != SPEC_VERSION:
            raise SpecMismatch(
                f"spec version {found}; this loopdit reads version {SPEC_VERSION}. "
                f"Use the loopdit that wrote it, or write it again with this one."
            )
        try:
            return cls(
                observations=tuple(
                    tensor_from(t) for t in typed("observations", data, list, tuple)
                ),
                action=tensor_from(data["action"]),
                action_frame=typed("action_frame", data, str),
                control_period_s=_period(data),
                history=typed("history", _OPTIONAL | dict(data), int),
                chunk_from=typed("chunk_from", _OPTIONAL | dict(data), str),
                optional=tuple(typed("optional", _OPTIONAL | dict(data), list)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise SpecMismatch(f"unreadable spec: {error!r}.") from error

    def digest(self) -> str:
        """16 hex digits that are equal only for equal specs."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def differences(self, other: "PolicySpec") -> list[str]:
        """One phrase for each field in which `other` differs: 'field is X, there Y'."""
        mine, theirs = _flat(self.to_dict()), _flat(other.to_dict())
        found: list[str] = []
        for key in [*mine, *(k for k in theirs if k not in mine)]:
            here, there = mine.get(key, "absent"), theirs.get(key, "absent")
            if here != there:
                found.append(f"{key} is {here}, there {there}")
        return found

    def require_equal(self, other: "PolicySpec", mine: str, theirs: str, remedy: str) -> None:
        """Raise SpecMismatch naming each differing field; `mine` and `theirs` say whose it is."""
        differences = self.differences(other)
        if differences:
            shown = "; ".join(differences[:4]) + ("; ..." if len(differences) > 4 else "")
            raise SpecMismatch(f"{mine} and {theirs} do not match: {shown}. {remedy}")

    def check_observation(self, observation: Observation) -> None:
        """Raise ObservationError for the first missing, unknown, misshapen or mistyped tensor, and
        for a `committed` that tells of no actions in flight."""
        declared = [t.name for t in self.observations]
        unknown = [name for name in observation if name not in declared]
        if unknown:
            raise ObservationError(
                f"observation has {unknown[0]!r}, which the policy does not take. "
                f"Send exactly: {', '.join(declared)}."
            )
        missing = [name for name in declared if name not in observation]
        needed = [name for name in missing if name not in self.optional]
        if needed:
            may = f" It may lack: {', '.join(self.optional)}." if self.optional else ""
            raise ObservationError(
                f"observation lacks {needed[0]!r}. Send exactly: {', '.join(declared)}.{may}"
            )
        if self.cameras and len(missing) == len(self.cameras):
            raise ObservationError(
                f"observation has no camera at all. Send at least one of: {', '.join(missing)}."
            )
        for tensor in self.observations:
            if tensor.name in missing:
                continue
            value = observation[tensor.name]
            # What a robot sends is typed by hope alone.
            if not isinstance(value, np.ndarray):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise ObservationError(
                    f"{tensor.name} is a {type(value).__name__}; send a numpy array of shape "
                    f"{tensor.shape} and dtype {tensor.dtype}."
                )
            if tuple(value.shape) != tensor.shape or value.dtype != np.dtype(tensor.dtype):
                raise ObservationError(
                    f"{tensor.name} has shape {tuple(value.shape)} and dtype {value.dtype}; "
                    f"the policy takes {tensor.shape} {tensor.dtype}."
                )
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                where = np.argwhere(~np.isfinite(value))[0].tolist()
                raise ObservationError(f"{tensor.name} is not finite at index {where}.")
            if tensor.name == COMMITTED:
                _check_committed(value[:, -1])


# What a spec may leave out, and what that means.
_OPTIONAL: dict[str, Any] = {"history": 1, "chunk_from": FROM_OBSERVATION, "optional": []}


def _check_committed(there: np.ndarray) -> None:
    """Raise ObservationError unless `there` (D,), the last column of `committed`, is some ones and
    then zeros: the one of them that a policy would look at decides what it plans from."""
    form = "Send the actions in flight from row 0 on, each followed by 1, and zeros behind them."
    odd = np.flatnonzero((there != 0) & (there != 1))
    if odd.size:
        raise ObservationError(
            f"{COMMITTED} says {there[odd[0]]:g} at the end of row {odd[0]}, where 1 is an action "
            f"in flight and 0 none. {form}"
        )
    holes = np.flatnonzero(np.diff(there) > 0)
    if holes.size:
        raise ObservationError(
            f"{COMMITTED} has no action in row {holes[0]} and one in row {holes[0] + 1}. {form}"
        )


def _period(data: Mapping[str, Any]) -> float:
    period_s = typed("control_period_s", data, int, float)
    if not 0 < period_s < float("inf"):
        raise ValueError(f"control_period_s is {period_s}")
    return float(period_s)


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """{'observations.proprio.shape': [13], ...}: tensors are keyed by name, so that a
    reordering or a missing camera reads as what it is."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if key == "observations":
            flat[f"{path} (order)"] = [t["name"] for t in value]
            for tensor in value:
                flat |= _flat(tensor, f"{tensor['name']}.")
        elif isinstance(value, dict):
            flat |= _flat(value, f"{path}.")
        else:
            flat[path] = value
    return flat
