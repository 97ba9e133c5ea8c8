"""Read Diffusion Policy's replay buffer: one Zarr array for each key, the episodes end to end.

    data/KEY             (N, ...), N the steps of all episodes: img, state, action, ...
    meta/episode_ends    (E,) int64: where each episode ends, exclusive

What lies behind the last end is a recording that was not finished and is left alone, as by the
buffer's own reader. Memory: one episode, and the chunks that it touches. A rate is not held; it is
suggested from `timestamp` where there is one. Frames saved as whole numbers from 0 to 255 in floats
(Push-T's) are read as uint8.

What our writer put into the root's attributes, where only we look, is given back: `Export.ours`,
and each episode's texts and metadata.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import zarr
from zarr.storage import LocalStore, ZipStore

from loopdit.datasets.formats.foreign import OURS, ForeignEpisode
from loopdit.datasets.formats.mapping import DataMapping, VectorPart
from loopdit.datasets.formats.plain_json import to_plain
from loopdit.errors import ConfigError, StoreError

NAME = "diffusion_policy"
ENDS = "episode_ends"
# What zarr, its codecs and zipfile raise; MemoryError for a shape of terabytes.
_DAMAGE = (OSError, RuntimeError, ValueError, TypeError, KeyError, MemoryError, BadZipFile)


@dataclass(frozen=True)
class ReplayBufferData:
    """See `foreign.ForeignData`.

    facts: "floats" has the dtype of frames that were saved in floats, "meta" what else the buffer
    says of itself; what it says of each episode is in the episodes' metadata. `own` is what our
    writer left of each, `keys` the key of each array whose name is another.
    """

    path: Path
    facts: Mapping[str, Any]
    root: Path
    inner: str
    ends: Sequence[int]
    own: Sequence[Mapping[str, Any]]
    keys: Mapping[str, str]
    notes: Sequence[str] = ()

    @classmethod
    def of(cls, path: Path, root: Path, inner: str) -> "ReplayBufferData":
        """`inner` is where in the zip file `root` the buffer is. Raises StoreError for a buffer
        that is damaged."""
        with _group(root, inner) as group:
            meta = {name: _values(group["meta"][name], str(path), f"meta/{name}")
                    for name in group["meta"].array_keys()}  # fmt: skip
            ends = _checked_ends(meta.pop(ENDS), str(path))
            ours = _checked_ours(group.attrs.asdict().get(OURS, {}), str(path))
            first = dict(sorted(group["data"].arrays()))
            for name, array in first.items():
                if array.shape[:1] < (ends[-1],):
                    raise StoreError(
                        f"{path}: data/{name} has the shape {array.shape}, the episodes end at "
                        f"step {ends[-1]}. The buffer is cut short; fetch it again."
                    )
            floats = {
                name: array.dtype.name
                for name, array in first.items()
                if array.ndim == 4 and array.dtype.kind == "f" and _is_255(array[: ends[0]])
            }
            absent = {
                name: array.nchunks - array.nchunks_initialized for name, array in first.items()
            }
            absent = {name: count for name, count in absent.items() if count}
            behind = max((a.shape[0] for a in first.values()), default=ends[-1]) - ends[-1]
        notes = [f"the floats of {name} are whole numbers to 255: uint8 here" for name in floats]
        notes += [
            f"data/{name} lacks {count} of its chunks, read as zeros: such, or lost in copying"
            for name, count in absent.items()
        ]
        if behind:
            notes.append(f"{behind} steps behind the end of the last episode are left out")
        facts: dict[str, Any] = {
            "floats": floats,
            "meta": {k: to_plain(v) for k, v in meta.items() if v.shape[:1] != (len(ends),)},
        }
        if "ours" in ours:
            facts[OURS] = ours["ours"]
        # Others may have added episodes to the buffer, or dropped some, since we wrote it.
        own = [*ours.get("episodes", []), *[{}] * len(ends)][: len(ends)]
        each = {k: v for k, v in meta.items() if v.shape[:1] == (len(ends),)}
        own = [
            {**said, "meta": {name: to_plain(values[i]) for name, values in each.items()}}
            for i, said in enumerate(own)
        ]
        return cls(path, facts, root, inner, ends, own, ours.get("keys", {}), notes)

    def __len__(self) -> int:
        return len(self.ends)

    def episode(self, index: int) -> ForeignEpisode:
        """See `foreign.ForeignData`."""
        where = f"{self.path}, episode {index}"
        start, end = ([0, *self.ends])[index], self.ends[index]
        if end <= start:
            raise StoreError(f"{where} has no steps: meta/{ENDS} says {start} and {end}.")
        steps: dict[str, np.ndarray] = {}
        with _group(self.root, self.inner) as group:
            for name, array in sorted(group["data"].arrays()):
                values = _values(array, where, f"data/{name}", start, end)
                if name in self.facts["floats"] and _is_whole(values):
                    values = values.astype(np.uint8)
                steps[self.keys.get(name, name)] = values
        own = self.own[index]
        texts = {key: tuple(values) for key, values in own.get("texts", {}).items()}
        metadata = {**own.get("metadata", {}), NAME: {"meta": own["meta"]}}
        return ForeignEpisode(where, steps, texts, metadata)

    def suggested_mapping(self) -> DataMapping:
        """By the names that Diffusion Policy's, UMI's and their users' sets have for things."""
        first = self.episode(0)
        steps = first.steps
        cameras = [key for key, value in steps.items() if value.ndim == 4]
        proprio = [key for key in ("state", "agent_pos") if key in steps][:1] or [
            key
            for key, value in steps.items()
            if key.startswith(("robot", "agent")) and value.ndim == 2 and "demo_" not in key
        ]
        named = {"the robot's state": proprio, "the action": "action" in steps}
        lacking = [name for name, found in named.items() if not found]
        if lacking:
            raise ConfigError(
                f"{self.path} has no key for {lacking[0]} that is known, among: "
                f"{', '.join(sorted(steps))}. Give a mapping that names it."
            )
        return DataMapping(
            cameras={key.removesuffix("_rgb").removesuffix("_image"): (key,) for key in cameras},
            proprio=tuple(VectorPart((key,)) for key in proprio),
            action=(VectorPart(("action",)),),
            action_frame="not stated by the data set",
            rate_hz=_rate(steps.get("timestamp")),
        )


@contextmanager
def _group(root: Path, inner: str) -> Generator[Any]:
    """The buffer's group, opened anew each time: a zip file left open would have no owner."""
    store: Any = ZipStore(root, mode="r") if root.is_file() else LocalStore(root, read_only=True)
    try:
        yield zarr.open_group(store, path=inner, mode="r")
    except _DAMAGE as error:
        raise StoreError(
            f"cannot read {root / inner}: {_said(error):.200}. Fetch it again; a codec that is not "
            f"available here has to be left off where the buffer is made."
        ) from error
    finally:
        store.close()


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


def _values(array: Any, where: str, key: str, start: int = 0, end: int | None = None) -> np.ndarray:
    try:
        return np.asarray(array[start:end] if array.ndim else array[()])
    except _DAMAGE as error:
        raise StoreError(
            f"{where}: {key} cannot be read: {_said(error):.200}. Fetch it again."
        ) from (error)


def _checked_ends(ends: np.ndarray, where: str) -> list[int]:
    found = [int(end) for end in ends.ravel()]
    if not found or sorted(found) != found or found[0] < 0:
        raise StoreError(
            f"{where}: meta/{ENDS} is {str(found)[:60]}, not the rising ends of episodes. "
            f"Fetch the buffer again."
        )
    return found


def _checked_ours(ours: Any, where: str) -> dict[str, Any]:
    """What our writer left in the root's attributes: each part of the kind that is read here."""
    parts = {"keys": dict, "episodes": list, "ours": dict}
    if isinstance(ours, dict) and all(isinstance(ours.get(k, v()), v) for k, v in parts.items()):
        each: list[Any] = ours.get("episodes", [])
        named = [e.get(k, {}) for e in each if isinstance(e, dict) for k in ("texts", "metadata")]
        if all(isinstance(said, dict) for said in (*each, *named)):
            return ours
    raise StoreError(
        f"{where}: the attribute {OURS!r} of the buffer is damaged. Remove it to go by the arrays."
    )


def _is_255(frames: np.ndarray) -> bool:
    """Whether frames in floats are numbers of 0 to 255 rather than 0 to 1."""
    return frames.size > 0 and float(frames.max()) > 1.0 and _is_whole(frames)


def _is_whole(frames: np.ndarray) -> bool:
    in_range = frames.min() >= 0 and frames.max() <= 255  # nan is neither
    return bool(in_range) and np.array_equal(frames, np.rint(frames))


def _rate(timestamps: np.ndarray | None) -> float:
    """Steps per second to three digits, 0 where it is not known."""
    if timestamps is None or len(timestamps) < 2:
        return 0.0
    period = float(np.median(np.diff(timestamps.ravel())))
    return float(f"{1 / period:.3g}") if period > 0 else 0.0
