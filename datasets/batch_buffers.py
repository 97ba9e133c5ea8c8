"""Arrays for batches, used again once nobody refers to them.

A fresh array of some megabytes costs more than filling it: the kernel clears every page of it.
Measured for batches of 64 pairs of 128x128 frames: 1.3 to 3 times the windows a second.
Whether an array is free is its reference count, which every view of it, every torch tensor made
from it and every loop variable raises; so a batch stays its owner's for as long as it is held.
"""

import sys
import threading

import numpy as np

_KEPT = 8  # of one shape; beyond that arrays are made and forgotten as always


class BatchBuffers:
    """Usable by several threads."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[tuple[int, ...], str], list[np.ndarray]] = {}
        self._lock = threading.Lock()

    def take(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """An array with any content."""
        with self._lock:
            arrays = self._arrays.setdefault((shape, dtype), [])
            for index in range(len(arrays)):
                if sys.getrefcount(arrays[index]) == _ALONE:
                    return arrays[index]
            array = np.empty(shape, dtype)
            if len(arrays) < _KEPT:
                arrays.append(array)
            return array


_PROBE = [object()]
_ALONE = sys.getrefcount(_PROBE[0])  # of an object that only a list refers to
