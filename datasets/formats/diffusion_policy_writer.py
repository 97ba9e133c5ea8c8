"""Write Diffusion Policy's replay buffer in Zarr v2, with its own chunks and compressor.

What the buffer has no place for (texts, the rate, names and units, what each episode says of
itself) goes into the root's attributes, where our own reader finds it and nobody else looks.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numcodecs import Blosc

from loopdit.datasets.formats.diffusion_policy_reader import ENDS, NAME
from loopdit.datasets.formats.foreign import OURS, Export, ForeignEpisode
from loopdit.datasets.formats.new_target import new_target
from loopdit.datasets.formats.plain_json import from_plain
from loopdit.errors import StoreError

_CHUNK_BYTES = 2e6  # ReplayBuffer's get_optimal_chunks
_ATTRIBUTE_BYTES = 1 << 24  # zarr parses them whenever the buffer is opened


def write(path: Path, export: Export) -> list[str]:
    """See `foreign.Format`."""
    if path.suffix == ".zip":
        raise StoreError(
            f"cannot write {path}: zipped buffers are only read. "
            f"Name a folder, as {path.with_suffix('')}."
        )
    with new_target(path) as aside:
        writer = _BufferWriter(aside, export)
        for episode in export.episodes:
            writer.add(episode)
        return writer.finish()


class _BufferWriter:
    """Appends episodes to the buffer's arrays, which grow."""

    def __init__(self, root: Path, export: Export) -> None:
        self._export = export
        self._root = zarr.open_group(root, mode="w", zarr_format=2)
        self._data = self._root.create_group("data")
        self._arrays: dict[str, Any] = {}  # by key
        self._ends: list[int] = []
        self._meta: list[Mapping[str, Any]] = []
        self._own: list[dict[str, Any]] = []

    def add(self, episode: ForeignEpisode) -> None:
        """Append one episode. Raises StoreError where it has other keys or shapes than the
        first."""
        start = self._ends[-1] if self._ends else 0
        length = len(next(iter(episode.steps.values())))
        if self._ends and set(episode.steps) != set(self._arrays):
            odd = sorted(set(episode.steps) ^ set(self._arrays))[0]
            raise StoreError(
                f"{episode.where}: only some episodes have {odd!r}, and a replay buffer has one "
                f"array for all. Leave these episodes out."
            )
        for key, values in episode.steps.items():
            values = values.astype(self._export.facts.get("floats", {}).get(key, values.dtype))
            array = self._arrays.get(key)
            if array is None:
                array = self._arrays[key] = self._new_array(key, values)
            if array.shape[1:] != values.shape[1:]:
                raise StoreError(
                    f"{episode.where}: {key!r} has the shape {values.shape[1:]} at each step, the "
                    f"episodes before {array.shape[1:]}, and a replay buffer has one array for all."
                )
            array.resize((start + length, *values.shape[1:]))
            array[start:] = values
        self._ends.append(start + length)
        self._meta.append(episode.metadata.get(NAME, {}).get("meta", {}))
        metadata = {key: value for key, value in episode.metadata.items() if key != NAME}
        texts = {key: list(values) for key, values in episode.texts.items()}
        named = {"texts": texts, "metadata": metadata}
        self._own.append({name: value for name, value in named.items() if value})

    def finish(self) -> list[str]:
        """Write what is said once, and say what only we can read again."""
        meta = self._root.create_group("meta")
        said: dict[str, Any] = {
            name: from_plain(v) for name, v in self._export.facts.get("meta", {}).items()
        }
        for name in self._meta[0] if self._meta else ():
            if all(name in each for each in self._meta):
                said[name] = np.array([from_plain(each[name]) for each in self._meta])
        for name, values in (said | {ENDS: np.array(self._ends, np.int64)}).items():
            array = np.asarray(values)
            made: Any = meta.create_array(
                name, shape=array.shape, dtype=array.dtype, chunks=array.shape, compressors=None
            )
            made[...] = array
        ours: dict[str, Any] = {"rate_hz": self._export.rate_hz}
        if self._export.ours:
            ours["ours"] = self._export.ours
        keys = {array.basename: key for key, array in self._arrays.items()}
        renamed = {name: key for name, key in keys.items() if name != key}
        if renamed:
            ours["keys"] = renamed
        lost = self._unplaced()
        if any(self._own):
            ours["episodes"] = self._own
        if len(json.dumps(ours)) > _ATTRIBUTE_BYTES:
            del ours["episodes"]
            lost.append("texts and metadata of the episodes, too large for the root's attributes")
        self._root.attrs[OURS] = ours
        return lost

    def _new_array(self, key: str, values: np.ndarray) -> Any:
        if values.dtype.kind not in "?biuf":
            raise StoreError(
                f"{key!r} has the type {values.dtype}, and a replay buffer holds numbers. "
                f"Leave that key out of the mapping or of the extras."
            )
        # A slash would make a group of it, and the buffer takes everything in `data` for an array.
        name = key.replace("/", ".")
        while name in self._data:
            name += "_"
        step_bytes = max(1, values.dtype.itemsize * math.prod(values.shape[1:]))
        chunk = max(1, min(len(values), math.ceil(_CHUNK_BYTES / step_bytes)))
        return self._data.create_array(
            name,
            shape=(0, *values.shape[1:]),
            dtype=values.dtype,
            chunks=(chunk, *(max(1, size) for size in values.shape[1:])),
            compressors=Blosc(cname="lz4", clevel=5, shuffle=Blosc.NOSHUFFLE),
        )

    def _unplaced(self) -> list[str]:
        """What the buffer has no place for. The attributes hold it, for our reader alone."""
        export, kept = self._export, "in .zattrs, which only loopdit reads"
        found = [f"the rate of {export.rate_hz:g} Hz ({kept})"]
        if export.ours or export.names:
            found.append(f"names, units and limits of elements ({kept})")
        texts = {key for own in self._own for key in own.get("texts", {})}
        metadata = {key for own in self._own for key in own.get("metadata", {})}
        found += [f"the text {key!r} of each episode ({kept})" for key in sorted(texts)]
        found += [f"{key!r} of each episode ({kept})" for key in sorted(metadata)]
        return found
