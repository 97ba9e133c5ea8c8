"""Arrays of plain numbers out of what a stranger says of them: nothing else is ever made."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

PLAIN_KINDS = "biuf"  # truth values, integers, floats
_PLAIN = re.compile(r"[<>|=]?[?biuf]\d{0,2}")


def plain_array(data: Any, dtype: Any, shape: Sequence[Any], offset: int = 0) -> np.ndarray:
    """A read-only view of `data` from `offset` on, in C order. Raises ValueError where they do not
    fit together, or the dtype is not one of plain numbers."""
    kind = plain_dtype(dtype)
    sides = [int(side) for side in shape]
    if any(side < 0 for side in sides):
        raise ValueError(f"an array of shape {sides}")
    return np.frombuffer(data, kind, offset=offset).reshape(sides)


def plain_dtype(name: Any) -> np.dtype[Any]:
    """numpy reads whole languages out of a dtype's name; this only names like <f4 and |u1."""
    if not isinstance(name, str) or not _PLAIN.fullmatch(name):
        raise ValueError(f"an array of dtype {name!s:.40}")
    try:
        return np.dtype(name)
    except TypeError as error:
        raise ValueError(f"an array of dtype {name}") from error
