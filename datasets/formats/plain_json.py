"""Attributes and arrays of HDF5 and Zarr files as plain JSON, and back with the same dtype.

A string, a bool, an int64 and a finite float64 are themselves; anything else is a dictionary with
its dtype, its shape and its zlib-compressed bytes in base64.
"""

import base64
import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np


def to_plain(value: Any) -> Any:
    """What `from_plain` reads back. Raises ValueError for what is neither numbers nor text."""
    if isinstance(value, str | bool | int):
        return value
    if isinstance(value, np.generic) and value.dtype in ("bool", "int64"):
        return value.item()
    if isinstance(value, float) and math.isfinite(value):  # np.float64 is one
        return float(value)
    array = np.asarray(value)
    if array.dtype.kind in "OUT":
        texts = [_text(item) for item in array.ravel().tolist()]
        return {"shape": list(array.shape), "texts": texts}
    if array.dtype.kind not in "?biufcS":
        raise ValueError(f"values of type {array.dtype} are neither numbers nor text")
    data = base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes())).decode()
    return {"dtype": array.dtype.str, "shape": list(array.shape), "zlib": data}


def from_plain(plain: Any) -> Any:
    """A scalar, a string or an array, as `to_plain` was given it."""
    if not isinstance(plain, dict):
        return plain
    packed: dict[str, Any] = plain
    shape = tuple(packed["shape"])
    if "texts" in packed:
        return np.array(packed["texts"], dtype=object).reshape(shape)
    data = zlib.decompress(base64.b64decode(packed["zlib"]))
    # A copy: what frombuffer gives cannot be written to, and a scalar's shape is ().
    array = np.frombuffer(data, np.dtype(packed["dtype"])).reshape(shape).copy()
    return array if shape else array[()]


def finite_json(plain: Any) -> Any:
    """The same JSON with the text of each number that JSON has not: "nan", "inf"."""
    if isinstance(plain, Mapping):
        return {str(key): finite_json(value) for key, value in plain.items()}
    if isinstance(plain, list | tuple):
        return [finite_json(value) for value in plain]
    return str(plain) if isinstance(plain, float) and not math.isfinite(plain) else plain


def _text(item: Any) -> str:
    if isinstance(item, bytes):
        return item.decode()
    if isinstance(item, str):
        return item
    raise ValueError(f"{item!r:.40} is neither a number nor text")
