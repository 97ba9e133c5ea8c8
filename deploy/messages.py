"""The messages of wire v1 and the codes of its errors, as they are named on the wire.

Each message is a msgpack array: its kind, its seq, then the fields below in their order. Fields
are only ever appended, with a default: an older reader ignores them, a newer one fills them in.
"""

from enum import StrEnum
from typing import Annotated, Any, TypeAlias

import msgspec

from loopdit.errors import ServerError

PROTOCOL_VERSION = 1
MAX_REASON_BYTES = 512

# 63 bits: the same number in a signed and an unsigned 64-bit integer of any language.
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class ErrorCode(StrEnum):
    """Why a request got no chunk. A reader meets codes that it does not know: they are text."""

    VERSION = "VERSION"  # no protocol version in common
    SPEC_MISMATCH = "SPEC_MISMATCH"  # the client expects another policy's spec
    MALFORMED = "MALFORMED"  # not a message of this protocol, or a `committed` with holes
    UNKNOWN_KIND = "UNKNOWN_KIND"  # a well-formed message of a kind not served
    TOO_BIG = "TOO_BIG"  # more tensors or bytes than the server takes
    UNKNOWN = "UNKNOWN"  # a tensor the policy does not take, or one it lacks
    SHAPE = "SHAPE"  # a tensor's shape, or its bytes against its shape
    DTYPE = "DTYPE"  # a tensor's dtype
    NONFINITE = "NONFINITE"  # NaN or infinity in an observation
    UNSUPPORTED = "UNSUPPORTED"  # loops, steps or a task that the server does not offer
    NO_SESSION = "NO_SESSION"  # say HELLO first (again, after a restart)
    STALE_EPOCH = "STALE_EPOCH"  # from before a reset
    REPLAYED = "REPLAYED"  # a seq that was already used
    LATE = "LATE"  # its budget does not suffice for its chunk
    SUPERSEDED = "SUPERSEDED"  # a newer observation of the same session took its place
    OVERLOAD = "OVERLOAD"  # too many sessions, or messages of one client
    CLOSING = "CLOSING"  # the server is stopping
    STOPPED = "STOPPED"  # the emergency stop is pressed
    INTERNAL = "INTERNAL"  # the policy raised: the server's log says what
    TIMEOUT = "TIMEOUT"  # never sent: the client's own verdict
    HANDSHAKE = "HANDSHAKE"  # never sent: the two sides do not accept each other's keys


# What the same client may reasonably send again, unchanged or with a newer observation.
_RETRYABLE = frozenset(
    {
        *(ErrorCode.NO_SESSION, ErrorCode.STALE_EPOCH, ErrorCode.LATE, ErrorCode.SUPERSEDED),
        *(ErrorCode.OVERLOAD, ErrorCode.CLOSING, ErrorCode.STOPPED, ErrorCode.TIMEOUT),
    }
)


class WireError(ServerError):
    """A refused or failed request; `code` says why, `seq` which one (0: none that could be read).

    `code` is an ErrorCode, or the bare text of one that this version does not know.
    """

    def __init__(self, code: str, message: str, seq: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.seq = seq

    @property
    def retryable(self) -> bool:
        """Whether sending again, with a newer observation, can succeed."""
        return self.code in _RETRYABLE


class TensorHeader(msgspec.Struct, array_like=True, frozen=True):
    """Describes one tensor frame; frames follow in the order of their headers."""

    name: str
    dtype: str
    shape: tuple[Count, ...]


class Timing(msgspec.Struct, array_like=True, frozen=True):
    """Microseconds a request spent in the server, on its monotonic clock.

    decode: reading and checking the message, and decoding JPEGs; queue: from there until its turn;
    encode and denoise: the policy's two parts; send: from the end of compute until the reply was
    packed.
    """

    queue: Count = 0
    decode: Count = 0
    encode: Count = 0
    denoise: Count = 0
    send: Count = 0


class Numbered(msgspec.Struct, array_like=True, frozen=True, tag_field="kind"):
    """`seq` numbers a client's messages from 1, strictly upwards; each answer repeats it."""

    seq: Count


class Hello(Numbered, frozen=True, tag="HELLO"):
    """Opens a session, or resumes it by its id in a new epoch."""

    protocol_min: Count
    protocol_max: Count
    session: Count  # random, 63 bits
    client: str = ""
    spec_digest: str = ""  # what the client was written for; empty: it will take what is served


class Welcome(Numbered, frozen=True, tag="WELCOME"):
    """The policy behind the server. `spec` is PolicySpec.to_dict()."""

    protocol: Count
    session: Count
    epoch: Count
    model_id: str
    horizon: Count
    loops: tuple[Count, ...]
    default_loops: Count
    default_steps: Count
    spec_digest: str
    spec: dict[str, Any]
    shared_memory: str = ""  # the lane for clients on this machine; empty: there is none
    encodings: tuple[str, ...] = ()  # in which cameras' tensors may be sent besides raw: "jpeg"


class Obs(Numbered, frozen=True, tag="OBS"):
    """One observation; asks for one chunk."""

    epoch: Count
    step: Count = 0  # the client's control step, echoed
    observed_ns: Count = 0  # the client's monotonic clock, echoed
    budget_us: Count = 0  # the chunk is wanted within this of arrival; 0: no limit
    loops: Count = 0  # 0: the server chooses
    steps: Count = 0  # 0: the server chooses
    seed: Count = 0
    instruction: str = ""
    tensors: tuple[TensorHeader, ...] = ()
    jpeg: tuple[str, ...] = ()  # which tensors are JPEGs: uint8 (n,), see jpeg_frames.py


class Chunk(Numbered, frozen=True, tag="CHUNK"):
    """The answer to an OBS: one tensor `action` (H, A) float32, raw units."""

    epoch: Count
    step: Count
    observed_ns: Count
    loops: Count
    steps: Count
    model_id: str
    timing_us: Timing
    tensors: tuple[TensorHeader, ...] = ()


class Reset(Numbered, frozen=True, tag="RESET"):
    """A new episode: requests of earlier epochs die. `seed` is mixed into every later OBS seed."""

    epoch: Count  # above the present one
    seed: Count = 0


class ResetAck(Numbered, frozen=True, tag="RESET_ACK"):
    """From here on only `epoch` is answered with chunks."""

    epoch: Count
    seed: Count


class Ping(Numbered, frozen=True, tag="PING"):
    """Is the server alive, and its policy? Needs no session."""


class Pong(Numbered, frozen=True, tag="PONG"):
    """Answered even while the policy computes, so that a hung policy shows as `busy_us`."""

    model_id: str
    busy_us: Count  # how long the present inference has been running; 0: idle
    idle_us: Count  # since the last inference ended; 0: none has
    queued: Count
    sessions: Count
    answered: Count  # chunks so far
    refused: Count  # errors so far
    uptime_us: Count


class Estop(Numbered, frozen=True, tag="ESTOP"):
    """Press the emergency stop, or release it: while it is pressed nothing is commanded to any
    robot. Needs no session."""

    pressed: bool = True
    reason: str = ""  # who or why, for people


class EstopAck(Numbered, frozen=True, tag="ESTOP_ACK"):
    """The stop as it is now; `reason` is that of whoever pressed it first."""

    pressed: bool
    reason: str


class Error(Numbered, frozen=True, tag="ERROR"):
    """The answer to any message that got no other; seq 0: to one whose seq was unreadable."""

    code: str
    retryable: bool
    message: str  # at most 512 bytes, never a traceback


class Bye(Numbered, frozen=True, tag="BYE"):
    """Either side leaves. Not answered."""

    reason: str = ""


Message: TypeAlias = (
    Hello | Welcome | Obs | Chunk | Reset | ResetAck | Ping | Pong | Estop | EstopAck | Error | Bye
)


def error(code: str, message: str, seq: int) -> Error:
    """An ERROR whose message fits the wire's limit."""
    short = message.encode()[:MAX_REASON_BYTES].decode(errors="ignore")
    return Error(seq=seq, code=code, retryable=code in _RETRYABLE, message=short)
