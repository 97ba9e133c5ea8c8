"""One episode: its arrays, its outcome, its record in a store's list, and when a spec accepts it.

T is the number of control steps. Step t holds the observation at t and the action commanded then.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from loopdit.datasets.spec import PolicySpec
from loopdit.errors import SpecMismatch, StoreError

ACTION = "action"  # the key of the actions beside the observations' own names


@dataclass(frozen=True)
class Episode:
    """What is recorded: observations (T, ...) by name, actions (T, A) float32 in raw units.

    `seed` is the one that the environment was reset with, `success` how the episode ended; both
    are None where nobody knows, as in most data of real robots. `extras` are arrays (T, ...) that
    no policy reads (rewards, timestamps, an embedding of the instruction) and `metadata` plain
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
        """Read what `to_line` wrote. Raises ValueError or TypeError for anything else."""
        data: Any = json.loads(line)
        return cls(**data)


def tensor_shapes(spec: PolicySpec, length: int) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
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
    wanted = tensor_shapes(spec, len(episode.actions))
    if set(given) != set(wanted):
        odd = sorted(set(given) ^ set(wanted))[0]
        verb = "lacks" if odd in wanted else "has an unknown"
        raise SpecMismatch(
            f"episode with seed {episode.seed} {verb} {odd!r}. Record exactly: {', '.join(wanted)}."
        )
    if len(episode.actions) == 0:
        raise StoreError(
            f"episode with seed {episode.seed} has no steps. Append it after its first action."
        )
    for name, (shape, dtype) in wanted.items():
        value = given[name]
        if value.shape != shape or value.dtype != dtype:
            raise SpecMismatch(
                f"{name} of the episode with seed {episode.seed} has shape {value.shape} and dtype "
                f"{value.dtype}; the store's spec says {shape} {dtype.name} for its "
                f"{shape[0]} actions. Record it so, or make a store with a spec of its own."
            )
        if dtype.kind == "f" and not np.isfinite(value).all():
            where = np.argwhere(~np.isfinite(value))[0].tolist()
            raise StoreError(
                f"{name} of the episode with seed {episode.seed} is not finite at step "
                f"{where[0]}, index {where[1:]}. Leave this episode out."
            )
    return {name: given[name] for name in wanted}


def content_digest(episode: Episode, arrays: Mapping[str, np.ndarray]) -> str:
    """32 hex digits that change with any value, name, shape, dtype or outcome of the episode."""
    described = {name: [a.shape, a.dtype.name] for name, a in arrays.items()}
    header = [episode.instruction, bool(episode.success), int(episode.seed), described]
    content = hashlib.sha256(json.dumps(header).encode())
    for array in arrays.values():
        content.update(np.ascontiguousarray(array).data)
    return content.hexdigest()[:32]
