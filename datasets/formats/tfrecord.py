"""TFRecord files without TensorFlow: records with checked lengths and checksums, in and out.

A record is its length (8 bytes), the checksum of those, the data, and the checksum of the data, all
little-endian; the checksum is crc32c, rotated and shifted ("masked"). What is in a record, this
module does not know.
"""

import struct
from pathlib import Path
from typing import BinaryIO

import google_crc32c

from loopdit.errors import StoreError

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")


def masked_checksum(data: bytes) -> int:
    """The masked crc32c that stands behind a length and behind the data."""
    crc = int(google_crc32c.value(data))
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def looks_like_tfrecord(path: Path) -> bool:
    """Whether the file begins with a record's length and the right checksum of it."""
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER.size)
    except OSError:
        return False
    return len(header) == _HEADER.size and _length(header) is not None


def record_places(path: Path) -> list[tuple[int, int]]:
    """(offset, length) of each record's data, by reading the lengths only.

    Raises StoreError naming the record for a file that is cut short or damaged there.
    """
    places: list[tuple[int, int]] = []
    size = path.stat().st_size
    with path.open("rb") as file:
        offset = 0
        while offset < size:
            file.seek(offset)
            length = _length(file.read(_HEADER.size))
            end = offset + _HEADER.size + (length or 0) + _FOOTER.size
            if length is None or end > size:
                cut = length is not None or size - offset < _HEADER.size
                reason = "the file ends in it" if cut else "the checksum of its length is wrong"
                raise StoreError(
                    f"{path}: record {len(places)} cannot be read, {reason}. Fetch the file again."
                )
            places.append((offset + _HEADER.size, length))
            offset = end
    return places


def read_record(file: BinaryIO, place: tuple[int, int]) -> bytes | None:
    """The data at a place that `record_places` gave; None where its checksum is wrong."""
    offset, length = place
    file.seek(offset)
    data = file.read(length)
    footer = file.read(_FOOTER.size)
    if len(data) != length or len(footer) != _FOOTER.size:
        return None
    return data if _FOOTER.unpack(footer)[0] == masked_checksum(data) else None


def write_record(file: BinaryIO, data: bytes) -> None:
    """Append one record."""
    length = struct.pack("<Q", len(data))
    file.write(length)
    file.write(_FOOTER.pack(masked_checksum(length)))
    file.write(data)
    file.write(_FOOTER.pack(masked_checksum(data)))


def _length(header: bytes) -> int | None:
    """The length that a header says, None where it is short or its checksum is wrong."""
    if len(header) != _HEADER.size:
        return None
    length, checksum = _HEADER.unpack(header)
    return int(length) if checksum == masked_checksum(header[:8]) else None
