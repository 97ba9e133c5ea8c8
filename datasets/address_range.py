"""A range of addresses into which files are mapped side by side, seen as one array.

Through the C library, because Python's `mmap` keeps a file descriptor for each map and cannot map
to a place of one's choice. What no file is mapped to yet must not be read: that stops the process.
"""

import ctypes
import math
import mmap
import os
from pathlib import Path

import numpy as np


class AddressRange:
    """Room for files of these sizes, each beginning at a multiple of `step` bytes.

    `starts` (N,) are their places in bytes. The maps go when nothing looks at the range any more.
    """

    def __init__(self, sizes: np.ndarray, step: int) -> None:
        # A map begins at a page, and a step of every file at a multiple of its size: the
        # addresses in between are never used and cost nothing.
        unit = math.lcm(step, mmap.PAGESIZE)
        ends = np.cumsum(-(-sizes.astype(np.int64) // unit) * unit)
        self.starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
        self._sizes = sizes
        self._size = int(ends[-1])
        self._memory = _Reserved(self._size)

    def array(self, dtype: np.dtype) -> np.ndarray:
        """The whole range, read-only."""
        return np.asarray(self._memory.seen_as(dtype))

    def map(self, number: int, file: Path) -> None:
        """Map a file of the size it was announced with to its place. Raises OSError."""
        descriptor = os.open(file, os.O_RDONLY)
        try:
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
            place = self._memory.address + int(self.starts[number])
            _map(place, int(self._sizes[number]), mmap.PROT_READ, _FIXED, descriptor)
        finally:
            os.close(descriptor)


class _Reserved:
    """Addresses that are ours until no array looks at them."""

    def __init__(self, size: int) -> None:
        self._size = size
        # Nothing can be read there, so nothing is set aside for it.
        self.address = _map(None, size, _PROT_NONE, _NOTHING, -1)

    def seen_as(self, dtype: np.dtype) -> "_Seen":
        """What numpy makes an array of."""
        return _Seen(self, self._size // dtype.itemsize, dtype)

    def __del__(self) -> None:
        if hasattr(self, "address"):
            _MUNMAP(self.address, self._size)


class _Seen:
    """A numpy array made of this keeps it alive, and with it the addresses."""

    def __init__(self, memory: _Reserved, count: int, dtype: np.dtype) -> None:
        self._memory = memory
        self.__array_interface__ = {
            "version": 3,
            "shape": (count,),
            "typestr": dtype.str,
            "data": (memory.address, True),  # read-only
        }


_PROT_NONE = 0
_FIXED = mmap.MAP_SHARED | 0x10  # MAP_FIXED on Linux and macOS alike
_NOTHING = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
_FAILED = ctypes.c_void_p(-1).value
_LIBC = ctypes.CDLL(None, use_errno=True)
_MMAP = _LIBC.mmap
_MMAP.restype = ctypes.c_void_p
_MMAP.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int64,  # off_t
]
_MUNMAP = _LIBC.munmap
_MUNMAP.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


def _map(address: int | None, size: int, protection: int, flags: int, descriptor: int) -> int:
    place: int | None = _MMAP(address, size, protection, flags, descriptor, 0)
    if place is None or place == _FAILED:
        code = ctypes.get_errno()
        raise OSError(code, f"cannot map {size} bytes: {os.strerror(code)}")
    return place
