"""Wire v1 as bytes: a message to its frames and back, as pure functions.

A message is a list of frames: a header (the magic `LDP1`, then one msgpack array whose first
element names the kind) and one raw little-endian C-order frame for each tensor that the header
describes. Everything that arrives is untrusted: it is checked here before any array views it, and
no frame is ever unpickled. Knows nothing of sockets, sessions or time. docs/protocol.md says the
same to a reader who writes a client in another language.

The framing serves more than one family of messages, each under a magic of its own: `Wire` is the
framing of one family, `encode` and `decode` are that of the policy's.
"""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Generic, TypeAlias, TypeVar, get_args

import msgspec
import numpy as np

from loopdit.deploy.messages import ErrorCode, Message, Numbered, TensorHeader, WireError

# A reader of another magic would misunderstand; everything less only appends fields.
MAGIC = b"LDP1"
MAX_TENSORS = 64
MAX_RANK = 8
MAX_HEADER_BYTES = 64 * 1024

# bool is missing on purpose: a byte other than 0 or 1 viewed as bool is undefined behaviour.
DTYPES = {
    name: np.dtype(name).newbyteorder("<")
    for name in (
        *("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"),
        *("float16", "float32", "float64"),
    )
}


# What an array's dtype is on the wire, in either byte order; `dtype.name` takes microseconds.
_WIRE_DTYPES = {
    order: (name, dtype)
    for name, dtype in DTYPES.items()
    for order in (dtype, dtype.newbyteorder())
}

Frame: TypeAlias = bytes | memoryview
Kind = TypeVar("Kind", bound=Numbered)

_encoder = msgspec.msgpack.Encoder()


class Wire(Generic[Kind]):
    """The framing of one family: `magic` (4 bytes, the last one its version) and the union of its
    messages. Those with a field `tensors` carry tensors."""

    def __init__(self, magic: bytes, family: Any) -> None:
        self._magic = magic
        self._decoder: msgspec.msgpack.Decoder[Kind] = msgspec.msgpack.Decoder(family)
        self._kinds = frozenset(str(kind.__struct_config__.tag) for kind in get_args(family))

    def encode(self, message: Kind, tensors: Mapping[str, np.ndarray] | None = None) -> list[Frame]:
        """The frames of `message`; `tensors` only for one that carries them.

        Raises WireError(DTYPE) for an array of a dtype that the wire does not carry.
        """
        frames: list[Frame] = [b""]
        if tensors:
            headers: list[TensorHeader] = []
            for name, array in tensors.items():
                known = _WIRE_DTYPES.get(array.dtype)
                if known is None:
                    raise WireError(
                        ErrorCode.DTYPE,
                        f"{name} has dtype {array.dtype}; the wire carries {', '.join(DTYPES)}.",
                    )
                headers.append(TensorHeader(name, known[0], array.shape))
                frames.append(_raw(array, known[1]))
            message = msgspec.structs.replace(message, tensors=tuple(headers))
        frames[0] = self._magic + _encoder.encode(message)
        return frames

    def decode(self, frames: Sequence[Frame], max_bytes: int) -> tuple[Kind, dict[str, np.ndarray]]:
        """The message and its tensors, as read-only views of `frames` (which may be hostile).

        `max_bytes` caps the tensors of one message together. Raises WireError: VERSION, MALFORMED,
        UNKNOWN_KIND, TOO_BIG, DTYPE or SHAPE, with the seq where one could be read.
        """
        message = self._header(frames[0] if frames else b"")
        described: tuple[TensorHeader, ...] = getattr(message, "tensors", ())
        try:
            return message, _view_tensors(described, frames[1:], max_bytes)
        except WireError as fault:
            fault.seq = message.seq
            raise

    def _header(self, header: Frame) -> Kind:
        if len(header) > MAX_HEADER_BYTES:
            raise WireError(
                ErrorCode.TOO_BIG, f"header of {len(header)} bytes; at most {MAX_HEADER_BYTES}."
            )
        if header[:4] != self._magic:
            if header[:3] == self._magic[:3]:
                raise WireError(
                    ErrorCode.VERSION,
                    f"message of protocol {bytes(header[:4])!r}; this loopdit speaks "
                    f"{self._magic!r}. "
                    "Use the same loopdit on both sides.",
                )
            raise WireError(
                ErrorCode.MALFORMED, f"header begins {bytes(header[:4])!r}, not {self._magic!r}."
            )
        try:
            return self._decoder.decode(memoryview(header)[4:])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
            raise self._header_fault(header, fault) from None

    def _header_fault(self, header: Frame, fault: Exception) -> WireError:
        """Why a header is not a message, with its seq where at least that can be read."""
        try:
            fields = msgspec.msgpack.decode(memoryview(header)[4:])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError, ValueError):
            fields = None
        if not isinstance(fields, list) or not fields:
            return WireError(ErrorCode.MALFORMED, "header is not a msgpack array.")
        kind, seq = fields[0], _seq_in(fields)
        if isinstance(kind, str) and kind not in self._kinds:
            return WireError(
                ErrorCode.UNKNOWN_KIND, f"message kind {kind[:32]!r} is not known.", seq
            )
        return WireError(ErrorCode.MALFORMED, f"header of {str(kind)[:32]!r}: {fault}.", seq)


_POLICY: Wire[Message] = Wire(MAGIC, Message)


def encode(message: Message, tensors: Mapping[str, np.ndarray] | None = None) -> list[Frame]:
    """The frames of a policy's message; `tensors` only for an Obs or a Chunk. See `Wire`."""
    return _POLICY.encode(message, tensors)


def decode(frames: Sequence[Frame], max_bytes: int) -> tuple[Message, dict[str, np.ndarray]]:
    """The policy's message in `frames` and its tensors. See `Wire`."""
    return _POLICY.decode(frames, max_bytes)


def sequence_number(frames: Sequence[Frame]) -> int:
    """The seq of a message that will not be looked at any further; 0 where it cannot be read."""
    header = frames[0] if frames else b""
    if not 4 < len(header) <= MAX_HEADER_BYTES:
        return 0
    try:
        fields = msgspec.msgpack.decode(memoryview(header)[4:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError, ValueError):
        return 0
    return _seq_in(fields)


def _seq_in(fields: Any) -> int:
    seq = fields[1] if isinstance(fields, list) and len(fields) > 1 else 0
    return seq if isinstance(seq, int) and 0 < seq < 2**63 else 0


def _raw(array: np.ndarray, dtype: "np.dtype[Any]") -> Frame:
    """As plain bytes, so that a frame's length is its length wherever it is looked at."""
    if array.dtype is not dtype or not array.flags.c_contiguous:
        array = np.ascontiguousarray(array, dtype=dtype)
    return array.reshape(-1).view(np.uint8).data if array.size else b""


def _view_tensors(
    headers: tuple[TensorHeader, ...], frames: Sequence[Frame], max_bytes: int
) -> dict[str, np.ndarray]:
    tensors: dict[str, np.ndarray] = {}
    sizes = tuple(map(len, frames))
    for (name, dtype, shape), frame in zip(_layout(headers, sizes, max_bytes), frames, strict=True):
        view = np.ndarray(shape, dtype, frame)
        # On a little-endian machine, that is all.
        tensors[name] = view if dtype.isnative else view.astype(dtype.newbyteorder("="))
    return tensors


# Remembered: the observations of a client are alike, and checking is most of the work of decoding.
@lru_cache(maxsize=32)
def _layout(
    headers: tuple[TensorHeader, ...], sizes: tuple[int, ...], max_bytes: int
) -> tuple[tuple[str, "np.dtype[Any]", tuple[int, ...]], ...]:
    """Name, dtype and shape of each tensor whose frame has that many bytes."""
    if len(headers) > MAX_TENSORS or len(sizes) > MAX_TENSORS:
        raise WireError(
            ErrorCode.TOO_BIG, f"{max(len(headers), len(sizes))} tensors; at most {MAX_TENSORS}."
        )
    if len(headers) != len(sizes):
        raise WireError(
            ErrorCode.MALFORMED,
            f"{len(sizes)} tensor frames where the header describes {len(headers)}.",
        )
    if sum(sizes) > max_bytes:
        raise WireError(ErrorCode.TOO_BIG, f"{sum(sizes)} bytes of tensors; at most {max_bytes}.")
    layout: dict[str, tuple[str, np.dtype[Any], tuple[int, ...]]] = {}
    for header, size in zip(headers, sizes, strict=True):
        name, shape = header.name, header.shape
        if name in layout:
            raise WireError(ErrorCode.MALFORMED, f"tensor {name[:64]!r} occurs twice.")
        dtype = DTYPES.get(header.dtype)
        if dtype is None:
            raise WireError(
                ErrorCode.DTYPE,
                f"{name[:64]} has dtype {header.dtype[:32]!r}; the wire carries "
                f"{', '.join(DTYPES)}.",
            )
        if len(shape) > MAX_RANK:
            raise WireError(
                ErrorCode.SHAPE, f"{name[:64]} has {len(shape)} axes; at most {MAX_RANK}."
            )
        # Python integers: a product that would overflow 64 bits cannot slip through.
        needed = math.prod(shape) * dtype.itemsize
        if needed != size or max(shape, default=0) > max_bytes:
            raise WireError(
                ErrorCode.SHAPE,
                f"{name[:64]}: {header.dtype} {shape} is {needed} bytes, its frame has {size}.",
            )
        layout[name] = name, dtype, shape
    return tuple(layout.values())
