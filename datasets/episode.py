"""One episode: its arrays, its outcome, its record in a store's list, and when a spec accepts it.

T is the number of control steps. Step t holds the observation at t and the action commanded then.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from types import NoneType
from typing import Any, cast

import numpy as np

from loopdit.datasets.spec import PolicySpec
from loopdit.errors import SpecMismatch, StoreError

ACTION = "action"  # the key of the actions beside the observations' own names
# The extra with the actions (T, A) that were really executed, where they differ from the labels.
EXECUTED_ACTION = "executed_action"
EXTRA_DTYPES = (
    "bool",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    *("float16", "float32", "float64", "complex64", "complex128"),
)


@dataclass(frozen=True)
class Episode:
    """What is recorded: observations (T, ...) by name, actions (T, A) float32 in raw units.

    `seed` is the one that the environment was reset with, `success` how the episode ended; both
    are None where nobody knows, as in most data of real robots. `extras` are arrays (T, ...) that
    no spec names (rewards, timestamps, an embedding of the instruction) and `metadata` plain
    JSON: what an imported episode had besides, kept to be exported again.
    """

    observations: Mapping[str, np.ndarray]
    actions: np.ndarray
    instruction: str
    success: bool | None
    seed: int | None
    extras: Mapping[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class EpisodeRecord:
    """One line of a store's list. `digest` identifies the episode's content, 32 hex digits."""

    id: str
    length: int
    instruction: str
    success: bool | None
    seed: int | None
    digest: str

    def to_line(self) -> str:
        """One line of JSON, without its newline."""
        return json.dumps(asdict(self))

    @classmethod
    def from_line(cls, line: str | bytes) -> "EpisodeRecord":
        """Read what `to_line` wrote. Raises ValueError, saying why, for anything else."""
        try:
            data: Any = json.loads(line)
        except ValueError as error:
            raise ValueError("it is no JSON") from error
        if not isinstance(data, dict) or set(cast(dict[str, Any], data)) != set(_KINDS):
            raise ValueError(f"it does not have exactly the fields {', '.join(_KINDS)}")
        for name, kinds in _KINDS.items():
            if type(data[name]) not in kinds:
                raise ValueError(f"its {name} is {data[name]!r:.40}")
        if data["length"] < 1:
            raise ValueError(f"its length is {data['length']}")
        if not _ID.fullmatch(data["id"]):
            raise ValueError(f"its id is {data['id']!r:.40}")
        return cls(**data)


# Exactly these: JSON's true is no number, and Python's is.
_KINDS: Mapping[str, tuple[type, ...]] = {
    "id": (str,),
    "length": (int,),
    "instruction": (str,),
    "success": (bool, NoneType),
    "seed": (int, NoneType),
    "digest": (str,),
}
_ID = re.compile(r"episode_\w+")  # a name of a folder, and never a way out of the store


def _tensor_shapes(spec: PolicySpec, length: int) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """(T, ...) shape and little-endian dtype of each array of an episode of `length` steps."""
    tensors = {t.name: t for t in spec.observations} | {ACTION: spec.action}
    return {
        name: ((length, *t.shape), np.dtype(t.dtype).newbyteorder("<"))
        for name, t in tensors.items()
    }


def checked_arrays(episode: Episode, spec: PolicySpec) -> dict[str, np.ndarray]:
    """The arrays by name, actions included, in the spec's order.

    Raises SpecMismatch for a missing, unknown, misshapen or mistyped one, and StoreError for an
    episode without steps or with numbers that are not finite.
    """
    given = {**episode.observations, ACTION: episode.actions}
    wanted = _tensor_shapes(spec, len(episode.actions))
    which = _which(episode)
    if set(given) != set(wanted):
        odd = sorted(set(given) ^ set(wanted))[0]
        verb = "lacks" if odd in wanted else "has an unknown"
        raise SpecMismatch(f"{which} {verb} {odd!r}. Record exactly: {', '.join(wanted)}.")
    if len(episode.actions) == 0:
        raise StoreError(f"{which} has no steps. Append it after its first action.")
    for name, (shape, dtype) in wanted.items():
        value = given[name]
        if value.shape != shape or value.dtype != dtype:
            raise SpecMismatch(
                f"{name} of the {which} has shape {value.shape} and dtype "
                f"{value.dtype}; the store's spec says {shape} {dtype.name} for its "
                f"{shape[0]} actions. Record it so, or make a store with a spec of its own."
            )
        if dtype.kind == "f" and not np.isfinite(value).all():
            where = np.argwhere(~np.isfinite(value))[0].tolist()
            raise StoreError(
                f"{name} of the {which} is not finite at step "
                f"{where[0]}, index {where[1:]}. Leave this episode out."
            )
    return {name: given[name] for name in wanted}


def checked_extras(episode: Episode) -> dict[str, np.ndarray]:
    """The extras by name, little-endian, sorted by name.

    Raises StoreError for one that is not of T steps, or neither numeric nor boolean.
    """
    steps = len(episode.actions)
    checked: dict[str, np.ndarray] = {}
    for name in sorted(episode.extras):
        value = np.asarray(episode.extras[name])
        dtype = value.dtype.newbyteorder("<")
        if value.dtype.name not in EXTRA_DTYPES or value.shape[:1] != (steps,):
            raise StoreError(
                f"the extra {name!r} of the {_which(episode)} has shape {value.shape} and dtype "
                f"{value.dtype}. Give numbers or booleans of shape ({steps}, ...), a row for "
                f"each step, and keep the rest in the episode's metadata."
            )
        checked[name] = value.astype(dtype, copy=False)
    return checked


def checked_metadata(episode: Episode) -> dict[str, Any]:
    """The metadata as JSON reads it back. Raises StoreError for what is no JSON."""
    try:
        text = json.dumps(dict(episode.metadata), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise StoreError(
            f"the metadata of the {_which(episode)} is not plain JSON: {error}. "
            f"Use text keys, and text, finite numbers, lists and mappings as values."
        ) from error
    return json.loads(text)


def _which(episode: Episode) -> str:
    return "episode" if episode.seed is None else f"episode with seed {episode.seed}"


@dataclass(frozen=True)
class Content:
    """What an array adds to its episode's identity: its bytes, and what they mean.

    `described` is its shape and dtype, and its encoding where decoding does not give back exactly
    what was recorded: then the bytes are the encoded ones, because decoders differ.
    """

    described: tuple[Any, ...]
    buffers: tuple[bytes | memoryview, ...]


def plain_content(array: np.ndarray) -> Content:
    """The content of an array that is kept without loss, however it is compressed."""
    return Content((array.shape, array.dtype.name), (buffer_of(array),))


def buffer_of(array: np.ndarray) -> memoryview:
    """The bytes of `array` in C order, copied only where they do not lie so."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def content_digest(
    outcome: Mapping[str, Any],
    arrays: Mapping[str, Content],
    extras: Mapping[str, Content],
    metadata: Mapping[str, Any],
) -> str:
    """32 hex digits that change with any value, name, shape, dtype or outcome of the episode.

    `outcome` has its instruction, success and seed. Extras and metadata count only where there
    are any: the digests of episodes without them are those of format version 1.
    """
    described: list[Any] = [outcome["instruction"], outcome["success"], outcome["seed"]]
    described.append({name: content.described for name, content in arrays.items()})
    if extras or metadata:
        described.append({name: content.described for name, content in extras.items()})
        described.append(json.dumps(metadata, sort_keys=True))
    digest = hashlib.sha256(json.dumps(described).encode())
    for buffer in _buffers(arrays.values()):
        digest.update(buffer)
    for buffer in _buffers(extras.values()):
        digest.update(buffer)
    return digest.hexdigest()[:32]


def _buffers(contents: Iterable[Content]) -> Iterable[bytes | memoryview]:
    return (buffer for content in contents for buffer in content.buffers)
