"""A message of wire v1 between processes of one machine: one datagram, its large frames elsewhere.

    u32 tensors n, u32 header bytes, n x (u64 place, u64 bytes), header, inline frames

All little-endian. `place` is where a frame lies in the sender's shared memory; INLINE says that it
follows in the datagram itself, in its turn. Pure: bytes in, frames out, and every number is checked
against what is there before anything is looked at.
"""

import struct
from collections.abc import Sequence

from loopdit.deploy.messages import ErrorCode, WireError
from loopdit.deploy.protocol import MAX_HEADER_BYTES, MAX_TENSORS, Frame

INLINE = 2**64 - 1
# Smaller frames travel in the datagram: they are copied, so that nobody can change them after they
# were checked.
MAX_INLINE_BYTES = 4096
# Below what the kernel takes for one datagram by default (212,992).
MAX_DATAGRAM_BYTES = 192 * 1024
_HEAD = struct.Struct("<II")
_PLACE = struct.Struct("<QQ")


def pack(header: Frame, tensors: Sequence[tuple[int, int]], inline: Sequence[Frame]) -> bytes:
    """`tensors` are (place, bytes) in order; `inline` the frames of those at INLINE, in order."""
    places = [_PLACE.pack(place, size) for place, size in tensors]
    return b"".join([_HEAD.pack(len(tensors), len(header)), *places, header, *inline])


def unpack(datagram: bytes, memory: memoryview) -> list[Frame]:
    """The frames of `datagram`, which may be hostile; those in `memory` are views of it.

    Raises WireError(MALFORMED or TOO_BIG).
    """
    if len(datagram) < _HEAD.size:
        raise WireError(ErrorCode.MALFORMED, f"a datagram of {len(datagram)} bytes.")
    count, header_bytes = _HEAD.unpack_from(datagram)
    if count > MAX_TENSORS or header_bytes > MAX_HEADER_BYTES:
        raise WireError(
            ErrorCode.TOO_BIG,
            f"{count} tensors and a header of {header_bytes} bytes; at most {MAX_TENSORS} and "
            f"{MAX_HEADER_BYTES}.",
        )
    at = _HEAD.size + count * _PLACE.size
    if at + header_bytes > len(datagram):
        raise WireError(ErrorCode.MALFORMED, "a datagram that ends before its header does.")
    body = memoryview(datagram)
    frames: list[Frame] = [datagram[at : at + header_bytes]]
    at += header_bytes
    for index in range(count):
        place, size = _PLACE.unpack_from(datagram, _HEAD.size + index * _PLACE.size)
        if place == INLINE:
            if at + size > len(datagram):
                raise WireError(ErrorCode.MALFORMED, "a datagram that ends within a tensor.")
            frames.append(body[at : at + size])
            at += size
        else:
            if place + size > len(memory):  # Python integers: nothing overflows
                raise WireError(
                    ErrorCode.MALFORMED,
                    f"a tensor at bytes {place} to {place + size} of a shared memory of "
                    f"{len(memory)}.",
                )
            frames.append(memory[place : place + size])
    return frames
