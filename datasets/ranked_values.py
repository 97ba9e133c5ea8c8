"""The k-th smallest of very many numbers, exactly, without sorting or copying: radix selection.

Floats are compared as the integers that their bits make once negative ones are turned around. Each
run through the data counts 16 bits of those integers, among the values that agree with the wanted
one in all bits before: two runs for float32, four for anything else (as float64).
Memory: 65536 counters for each rank and column, and a block of rows.
"""

from collections.abc import Sequence

import numpy as np

_DIGIT = 16  # bits
_BLOCK = 1 << 16  # rows


def values_at_ranks(values: np.ndarray, ranks: Sequence[int]) -> np.ndarray:
    """(len(ranks), D): for each column of `values` (N, D) the value at each rank, 0 the smallest.

    No value may be NaN.
    """
    kind = np.float32 if values.dtype == np.float32 else np.float64
    bits = np.dtype(kind).itemsize * 8
    wanted, inverse = np.unique(ranks, return_inverse=True)
    prefix = np.zeros((len(wanted), values.shape[1]), np.uint64)  # the bits found so far
    left = np.repeat(wanted[:, None], values.shape[1], axis=1)  # rank among those with the prefix
    for shift in range(bits - _DIGIT, -1, -_DIGIT):
        counts = np.zeros((*prefix.shape, 1 << _DIGIT), np.int64)
        for start in range(0, len(values), _BLOCK):
            keys = _ordered_bits(values[start : start + _BLOCK].astype(kind))
            _count(keys >> np.uint64(shift), prefix, counts)
        for place in np.ndindex(*prefix.shape):
            ends = counts[place].cumsum()
            digit = int(np.searchsorted(ends, left[place], side="right"))
            left[place] -= ends[digit] - counts[place][digit]
            prefix[place] = prefix[place] << np.uint64(_DIGIT) | np.uint64(digit)
    return _values(prefix, kind)[inverse]


def _count(keys: np.ndarray, prefix: np.ndarray, counts: np.ndarray) -> None:
    """Add one block's keys (T, D) to the counts of their lowest digit, where the rest agrees."""
    above = keys >> np.uint64(_DIGIT)
    digits = (keys & np.uint64((1 << _DIGIT) - 1)).astype(np.int64)
    for place in np.ndindex(*prefix.shape):
        column = place[1]
        same = digits[:, column][above[:, column] == prefix[place]]
        counts[place] += np.bincount(same, minlength=1 << _DIGIT)


def _ordered_bits(values: np.ndarray) -> np.ndarray:
    """uint64 keys (T, D) in the order of the floats."""
    sign, ones = _masks(values.dtype)
    raw = np.ascontiguousarray(values).view(f"u{values.dtype.itemsize}").astype(np.uint64)
    return np.where(raw & sign, raw ^ ones, raw | sign)


def _values(keys: np.ndarray, kind: type[np.floating]) -> np.ndarray:
    """The floats of these keys."""
    sign, ones = _masks(np.dtype(kind))
    raw = np.where(keys & sign, keys ^ sign, keys ^ ones)
    return raw.astype(f"u{np.dtype(kind).itemsize}").view(kind)


def _masks(dtype: np.dtype) -> tuple[np.uint64, np.uint64]:
    """The sign's bit, and all bits."""
    bits = dtype.itemsize * 8
    return np.uint64(1 << (bits - 1)), np.uint64((1 << bits) - 1)
