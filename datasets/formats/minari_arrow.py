"""Read the episodes of Minari's Arrow and Parquet sets; `minari_reader` says how they lie.

A table of T + 1 rows; the last row of actions, rewards, terminations and truncations is padding.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from loopdit.datasets.formats.minari_reader import METADATA, RawEpisode, Read, decoded
from loopdit.datasets.formats.minari_spaces import Space, is_image
from loopdit.datasets.formats.plain_json import to_plain
from loopdit.errors import StoreError

_PADDED = ("actions", "rewards", "terminations", "truncations")


def arrow_episodes(
    folder: Path, kind: str, spaces: Mapping[str, Space], compressed: bool
) -> tuple[list[int], Read]:
    """The ids of the episodes, and what reads one. Raises StoreError without the spaces, which
    say what shapes the flattened elements have."""
    ids = sorted(int(item.name) for item in folder.iterdir() if item.name.isdigit())
    if kind not in ("arrow", "parquet") or not spaces:
        raise StoreError(
            f"{folder / METADATA} says data_format {kind!r}"
            + ("" if spaces else " and lacks the spaces")
            + "; hdf5, arrow and parquet with their spaces can be read. Fetch the set again, or "
            "write it again with minari."
        )

    def read_episode(number: int, where: str) -> RawEpisode:
        place = folder / str(number)
        try:
            said: dict[str, Any] = json.loads((place / METADATA).read_bytes())
            table: Any = ds.dataset(
                str(place), format=kind, ignore_prefixes=["_", ".", METADATA]
            ).to_table()
        except (OSError, ValueError, pa.ArrowException) as error:
            raise StoreError(f"{where} cannot be read: {error!s:.200}. Fetch it again.") from error
        length = int(said["total_steps"])
        values: dict[str, Any] = {}
        for name in table.column_names:
            column = table.column(name).combine_chunks()
            found = _leaves(column, name, table.schema.field(name), spaces, compressed, where)
            for key, value in found.items():
                values[key] = value[:length] if name in _PADDED else value
        values.pop("episode_id", None)
        return RawEpisode(values, _flat_attributes(said))

    return ids, read_episode


def _leaves(
    column: Any, key: str, field: Any, spaces: Mapping[str, Space], compressed: bool, where: str
) -> dict[str, Any]:
    """The arrays or texts below a column of structs, by key."""
    if pa.types.is_struct(column.type):
        found: dict[str, Any] = {}
        is_tuple = all(child.name.isdigit() for child in column.type)
        for index, child in enumerate(column.type):
            name = f"_index_{child.name}" if is_tuple else child.name
            below = column.field(index)
            found |= _leaves(below, f"{key}/{name}", child, spaces, compressed, where)
        return found
    space = spaces.get(key)
    if pa.types.is_fixed_size_list(column.type):
        flat = column.flatten().to_numpy(zero_copy_only=False)
        shape = _shape(space, field)
        return {key: flat.reshape(len(column), *(shape if shape is not None else (-1,)))}
    if pa.types.is_binary(column.type) and compressed and is_image(space):
        return {key: decoded(column.to_pylist(), where, key)}
    if pa.types.is_string(column.type):
        return {key: tuple("" if text is None else text for text in column.to_pylist())}
    return {key: np.asarray(column.to_numpy(zero_copy_only=False))}


def _shape(space: Space | None, field: Any) -> list[int] | None:
    """Of one step: the space's for an observation, beside the values for an info."""
    if space is not None:
        return list(space.get("shape", (space.get("n"),)))
    said = (field.metadata or {}).get(b"shape")
    return None if said is None else [int(size) for size in said.split(b",") if size]


def _flat_attributes(said: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """As HDF5 has them: options of an environment are `options/name`."""
    flat: dict[str, Any] = {}
    for name, value in said.items():
        if isinstance(value, dict):
            flat |= _flat_attributes(value, f"{prefix}{name}/")
        elif value is not None:
            flat[f"{prefix}{name}"] = to_plain(
                np.asarray(value) if isinstance(value, list) else value
            )
    return flat
