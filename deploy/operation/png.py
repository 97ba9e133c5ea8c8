"""A frame as a PNG, for a browser: lossless, by what Python has with it."""

import struct
import zlib

import numpy as np


def png(frame: np.ndarray) -> bytes:
    """A frame (H, W, 3) uint8 RGB as the bytes of a PNG file.

    Filter 0 and the fastest compression: 224 x 224 pixels of a scene take some 3 ms.
    """
    height, width, _ = frame.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # each begins with its filter
    rows[:, 1:] = frame.reshape(height, 3 * width)
    content = zlib.compress(rows.tobytes(), 1)
    chunks = ((b"IHDR", header), (b"IDAT", content), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
