"""msgpack with numpy arrays, as openpi's clients and servers pack them (openpi-client 0.1.2).

An array is a map with the bytes keys `__ndarray__`, `data`, `dtype`, `shape`, in C order. Nothing
is unpickled, and what arrives is untrusted.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from loopdit.deploy.doors.plain_arrays import PLAIN_KINDS, plain_array, plain_dtype

_ARRAY, _SCALAR = b"__ndarray__", b"__npgeneric__"


def packed(content: Mapping[str, Any]) -> bytes:
    """msgpack with arrays as openpi packs them."""
    return msgspec.msgpack.encode(content, enc_hook=_pack_array)


def unpacked(message: bytes) -> Any:
    """What `packed` packed, arrays as read-only views of `message`. Raises ValueError for anything
    else."""
    try:
        return _with_arrays(msgspec.msgpack.decode(message))
    except (msgspec.DecodeError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise ValueError(f"{error!s:.200}") from error


def _pack_array(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype.kind in PLAIN_KINDS:
        return {
            _ARRAY: True,
            b"data": value.data if value.flags.c_contiguous and value.size else value.tobytes(),
            b"dtype": value.dtype.str,
            b"shape": value.shape,
        }
    raise TypeError(f"a {type(value).__name__} cannot be sent.")


def _with_arrays(tree: Any) -> Any:
    if isinstance(tree, list):
        return [_with_arrays(entry) for entry in tree]
    if not isinstance(tree, dict):
        return tree
    if _ARRAY in tree:
        return plain_array(tree[b"data"], tree[b"dtype"], tree[b"shape"])
    if _SCALAR in tree:
        return plain_dtype(tree[b"dtype"]).type(tree[b"data"])
    return {name: _with_arrays(value) for name, value in tree.items()}
