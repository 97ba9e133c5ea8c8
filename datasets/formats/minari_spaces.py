"""Gymnasium's spaces as Minari's metadata.json has them, without gymnasium.

A space's JSON: {"type": "Box", "dtype", "shape", "low", "high"}, {"type": "Dict", "subspaces": {}},
{"type": "Tuple", "subspaces": []}, and the scalar ones. The key of an element of a dictionary is
`key/name`, of a tuple `key/_index_0`, as in Minari's HDF5 files.
"""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

Space = Mapping[str, Any]


def parsed_space(text: Any) -> Space | None:
    """None where metadata.json has none: the space then is the environment's."""
    return json.loads(text) if isinstance(text, str) else None


def leaf_spaces(space: Space, key: str) -> dict[str, Space]:
    """The spaces below dictionaries and tuples, by key."""
    below = space.get("subspaces")
    if below is None:
        return {key: space}
    named = below if isinstance(below, dict) else {f"_index_{i}": s for i, s in enumerate(below)}
    leaves: dict[str, Space] = {}
    for name, subspace in named.items():
        leaves |= leaf_spaces(subspace, f"{key}/{name}")
    return leaves


def is_image(space: Space | None) -> bool:
    """Whether Minari compresses it by JPEG, unless told not to: its `is_image_space`."""
    if space is None or space["type"] != "Box" or space["dtype"] != "uint8":
        return False
    shape = space["shape"]
    if len(shape) not in (2, 3) or min(shape[:2]) < 32:
        return False
    return bool(np.all(np.asarray(space["low"]) == 0) and np.all(np.asarray(space["high"]) == 255))


def limits(space: Space | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Low and high of a vector, both empty where one of them is infinite."""
    if space is None or space["type"] != "Box" or len(space["shape"]) > 1:
        return (), ()
    low, high = (tuple(np.ravel(space[end]).astype(float).tolist()) for end in ("low", "high"))
    return (low, high) if all(map(math.isfinite, (*low, *high))) else ((), ())


def box(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Space:
    """Every array (T, ...) of this shape without T and this dtype: its whole range."""
    if dtype.kind == "f":
        ends: list[Any] = [-math.inf, math.inf]
    elif dtype.kind == "b":
        ends = [False, True]
    else:
        ends = [int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)]
    low, high = (np.full(shape, end, dtype).tolist() for end in ends)
    return {"type": "Box", "dtype": dtype.name, "shape": list(shape), "low": low, "high": high}


def text_space(texts: Iterable[str]) -> Space:
    """A space that has all of these texts."""
    texts = list(texts)
    return {
        "type": "Text",
        "max_length": max(1, *map(len, texts)),
        "min_length": 0,
        "charset": "".join(sorted({c for text in texts for c in text} | {" "})),
    }


def tree(leaves: Mapping[str, Space], key: str) -> Space:
    """The space whose `leaf_spaces` these are: dictionaries of them, or the one itself."""
    if key in leaves:
        return leaves[key]
    below: dict[str, dict[str, Space]] = {}
    for path, space in leaves.items():
        name = path.removeprefix(f"{key}/").split("/")[0]
        below.setdefault(name, {})[path] = space
    subspaces = {name: tree(spaces, f"{key}/{name}") for name, spaces in below.items()}
    if subspaces and all(name.startswith("_index_") for name in subspaces):
        ordered = sorted(subspaces, key=lambda name: int(name.removeprefix("_index_")))
        return {"type": "Tuple", "subspaces": [subspaces[name] for name in ordered]}
    return {"type": "Dict", "subspaces": subspaces}
