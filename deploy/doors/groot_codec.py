"""How GR00T packs a message: msgpack, with arrays in either of the two ways of its clients.

NPY: `{"__ndarray_class__": true, "as_npy": bytes of np.save}`, as N1.5 and N1.6 do. MSGPACK_NUMPY:
a map with the bytes keys `nd`, `type`, `kind`, `shape` and `data`, as the msgpack-numpy package
does and GR00T since. Nothing is unpickled: a message that would have to be is refused.
"""

import io
import re
from typing import Any

import msgspec
import numpy as np

from loopdit.deploy.doors.plain_arrays import PLAIN_KINDS, plain_array

NPY, MSGPACK_NUMPY = "npy", "msgpack-numpy"
_NPY_MARK, _NPY_DATA = "__ndarray_class__", "as_npy"
# Versions 1 to 3 of the format: magic, version, length of the header, header. What np.save writes.
_NPY = re.compile(
    rb"\x93NUMPY(?:\x01\x00..|[\x02\x03]\x00....)"
    rb"\{'descr': '([<>|=]?[?biuf]\d{0,2})', 'fortran_order': (True|False), "
    rb"'shape': \(([\d, ]{0,200})\), \} *\n",
    re.DOTALL,
)


def packed(content: Any, generation: str) -> bytes:
    """`content` with its arrays as `generation` has them."""
    return msgspec.msgpack.encode(content, enc_hook=_PACKERS[generation])


def unpacked(message: bytes) -> tuple[Any, str]:
    """What is in `message`, arrays as arrays, and the generation of its arrays (the later one where
    it has none). Raises ValueError for anything that cannot be read without unpickling."""
    found = [MSGPACK_NUMPY]
    try:
        return _with_arrays(msgspec.msgpack.decode(message), found), found[-1]
    except (msgspec.DecodeError, TypeError, KeyError, RecursionError, OverflowError, OSError) as e:
        raise ValueError(f"{e!s:.200}") from e


def _pack_npy(value: Any) -> Any:
    file = io.BytesIO()
    np.save(file, _plain(value), allow_pickle=False)
    return {_NPY_MARK: True, _NPY_DATA: file.getvalue()}


def _pack_msgpack_numpy(value: Any) -> Any:
    array = _plain(value)
    data = array.data if array.flags.c_contiguous and array.size else array.tobytes()
    return {
        b"nd": True,
        b"type": array.dtype.str,
        b"kind": b"",
        b"shape": array.shape,
        b"data": data,
    }


_PACKERS = {NPY: _pack_npy, MSGPACK_NUMPY: _pack_msgpack_numpy}


def _plain(value: Any) -> np.ndarray:
    if isinstance(value, np.ndarray) and value.dtype.kind in PLAIN_KINDS:
        return value
    raise TypeError(f"a {type(value).__name__} cannot be sent.")


def _with_arrays(tree: Any, found: list[str]) -> Any:
    if isinstance(tree, list):
        return [_with_arrays(entry, found) for entry in tree]
    if not isinstance(tree, dict):
        return tree
    if _NPY_MARK in tree:
        found.append(NPY)
        return _read_npy(tree[_NPY_DATA])
    fields = {_text(name): value for name, value in tree.items()}
    if fields.get("nd") is True and "type" in fields:
        found.append(MSGPACK_NUMPY)
        if _text(fields.get("kind", "")) not in ("", "V"):
            raise ValueError("an array of objects")
        return plain_array(fields["data"], _text(fields["type"]), fields["shape"])
    return {name: _with_arrays(value, found) for name, value in tree.items()}


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def _read_npy(file: Any) -> np.ndarray:
    """By hand: numpy's own reader makes room for whatever size a file claims, and tokenizes its
    header as Python."""
    found = _NPY.match(file) if isinstance(file, bytes) else None
    if found is None:
        raise ValueError("an array that np.save has not written, or not of plain numbers")
    dtype, order, shape = (group.decode() for group in found.groups())
    sides = [int(side) for side in shape.split(",") if side.strip()]
    if order == "True":
        return plain_array(file, dtype, sides[::-1], found.end()).transpose()
    return plain_array(file, dtype, sides, found.end())
