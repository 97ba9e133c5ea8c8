"""What a policy is given and what it commands: names, shapes, dtypes, units, limits, rate.

Written once by whoever makes the data, stored with it, copied into the checkpoint, the bundle and
the server's welcome, and compared at each of those borders. Numpy only: the robot imports this.

An observation is a flat dict from tensor name to array: `images.<camera>` (H, W, 3) uint8 RGB,
`proprio` (P,) float32. The instruction (a string) travels beside it. An action is (A,) float32.
A policy with history is given the last O observations in one: each tensor then has a leading axis
O, the oldest first. Environments and episode stores have single observations, history 1.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import numpy as np

from loopdit.errors import ObservationError, SpecMismatch

SPEC_VERSION = 1
IMAGE_PREFIX = "images."
PROPRIO = "proprio"

Observation = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class TensorSpec:
    """One named tensor.

    `labels` and `units` name each element of the last axis of a vector (empty for images);
    `low` and `high` are its limits in those units, where it has any.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    labels: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for field in ("labels", "units", "low", "high"):
            values = getattr(self, field)
            last = self.shape[-1] if self.shape else 0
            if values and len(values) != last:
                raise ValueError(f"{self.name}: {len(values)} {field} for a last axis of {last}.")

    @property
    def is_image(self) -> bool:
        """Whether this is a camera frame, (H, W, 3) uint8, or O of them."""
        return self.name.startswith(IMAGE_PREFIX)


@dataclass(frozen=True)
class PolicySpec:
    """The border between a robot (or simulator) and a policy.

    `action_frame` says in words what the numbers of an action are relative to.
    `control_period_s` is the time between two actions. `history` is how many observations a policy
    is given, O; above 1 it is the leading axis of every observation's shape.
    """

    observations: tuple[TensorSpec, ...]
    action: TensorSpec
    action_frame: str
    control_period_s: float
    version: int = SPEC_VERSION
    history: int = 1

    def __post_init__(self) -> None:
        if self.history < 1:
            raise ValueError(f"history is {self.history}; it must be at least 1.")
        for tensor in self.observations if self.history > 1 else ():
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

    def with_history(self, steps: int) -> "PolicySpec":
        """The spec of a policy that is given the last `steps` of these single observations.

        Raises ValueError for one that has a history already.
        """
        if self.history != 1:
            raise ValueError(f"this spec has a history of {self.history} already.")
        if steps == 1:
            return self
        stacked = tuple(replace(t, shape=(steps, *t.shape)) for t in self.observations)
        return replace(self, observations=stacked, history=steps)

    def without_history(self) -> "PolicySpec":
        """The spec of the single observations: what an environment or an episode store has."""
        if self.history == 1:
            return self
        single = tuple(replace(t, shape=t.shape[1:]) for t in self.observations)
        return replace(self, observations=single, history=1)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` reads it back. A history of 1 is left out."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        if self.history == 1:
            del plain["history"]
        return plain

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
                observations=tuple(_tensor(t) for t in _typed("observations", data, list, tuple)),
                action=_tensor(data["action"]),
                action_frame=_typed("action_frame", data, str),
                control_period_s=_period(data),
                history=_typed("history", {"history": 1, **data}, int),
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
        """Raise ObservationError for the first missing, unknown, misshapen or mistyped tensor."""
        declared = [t.name for t in self.observations]
        unknown = [name for name in observation if name not in declared]
        if unknown:
            raise ObservationError(
                f"observation has {unknown[0]!r}, which the policy does not take. "
                f"Send exactly: {', '.join(declared)}."
            )
        for tensor in self.observations:
            if tensor.name not in observation:
                raise ObservationError(
                    f"observation lacks {tensor.name!r}. Send exactly: {', '.join(declared)}."
                )
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


def _tensor(data: Any) -> TensorSpec:
    """Raises KeyError, TypeError or ValueError for what no spec says."""
    if not isinstance(data, Mapping):
        raise TypeError(f"a tensor is {data!r:.60}")
    said = cast(Mapping[str, Any], data)
    fields: dict[str, Any] = {
        key: tuple(cast(list[Any], value)) if isinstance(value, list) else value
        for key, value in said.items()
    }
    name = _typed("name", fields, str)
    for key, kinds in _ELEMENTS.items():
        values = fields.get(key, ())
        if not isinstance(values, tuple) or any(
            type(value) not in kinds for value in cast(tuple[Any, ...], values)
        ):
            raise TypeError(f"{key} of {name} is {values!r:.60}")
    if not all(0 <= size < 2**31 for size in fields["shape"]):
        raise ValueError(f"shape of {name} is {fields['shape']}")
    if np.dtype(_typed("dtype", fields, str)).kind not in "buifc":
        raise ValueError(f"dtype of {name} is {fields['dtype']!r}")
    return TensorSpec(**fields)


# What each may hold, exactly: JSON's true is no number, and Python's is.
_ELEMENTS: Mapping[str, tuple[type, ...]] = {
    "shape": (int,),
    "labels": (str,),
    "units": (str,),
    "low": (int, float),
    "high": (int, float),
}


def _period(data: Mapping[str, Any]) -> float:
    period_s = _typed("control_period_s", data, int, float)
    if not 0 < period_s < float("inf"):
        raise ValueError(f"control_period_s is {period_s}")
    return float(period_s)


def _typed(key: str, data: Mapping[str, Any], *kinds: type) -> Any:
    """data[key]. Raises KeyError, or TypeError where it is of another type."""
    if type(data[key]) not in kinds:
        raise TypeError(f"{key} is {data[key]!r:.60}")
    return data[key]


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
