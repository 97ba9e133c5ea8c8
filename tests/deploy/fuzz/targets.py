"""What is fuzzed: everything that reads bytes a stranger sent, as functions of bytes.

Each raises only for a bug: what the code under test says about hostile input is caught here, and
what it returns is checked. `CORPUS` has inputs that cover its branches, and those that once failed.
"""

import contextlib
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tests.deploy.echo_policy import SPEC, EchoPolicy, observation

from loopdit.datasets.spec import Observation
from loopdit.deploy import jpeg_frames
from loopdit.deploy.doors import groot_codec, msgpack_numpy
from loopdit.deploy.messages import Chunk, Error, Hello, Message, Obs, Welcome, WireError
from loopdit.deploy.protocol import decode, encode, sequence_number
from loopdit.deploy.serving.dispatcher import Dispatcher
from loopdit.deploy.serving.offer import offer_of
from loopdit.deploy.serving.served_policy import Inference
from loopdit.deploy.wire import lane_datagram

CORPUS = Path(__file__).with_name("corpus")
CAP = 1 << 16
_MOST_FRAMES = 80


class _StillClock:
    now = 0.0


def to_frames(data: bytes) -> list[bytes]:
    """Frames, each behind its length in two bytes; the last one is what is left."""
    frames: list[bytes] = []
    while len(data) >= 2 and len(frames) < _MOST_FRAMES:
        (length,) = struct.unpack_from("<H", data)
        frames.append(data[2 : 2 + length])
        data = data[2 + length :]
    return [*frames, data] if data else frames


def from_frames(frames: list[bytes]) -> bytes:
    """What `to_frames` reads."""
    return b"".join(struct.pack("<H", len(frame)) + frame for frame in frames)


def fuzz_decode(data: bytes) -> None:
    """A decoded message encodes again to what decodes to the same."""
    frames = to_frames(data)
    sequence_number(frames)
    try:
        message, tensors = decode(frames, CAP)
    except WireError:
        return
    assert sum(array.nbytes for array in tensors.values()) <= CAP
    again, arrays = decode([bytes(frame) for frame in encode(message, tensors)], CAP)
    assert again == message
    for name, array in tensors.items():
        assert arrays[name].tobytes() == array.tobytes()


def fuzz_lane(data: bytes) -> None:
    """Every frame lies within the datagram or the memory."""
    memory = memoryview(bytes(4096))
    try:
        frames = lane_datagram.unpack(data, memory)
    except WireError:
        return
    inside = len(data) + len(memory) * lane_datagram.MAX_TENSORS
    assert sum(len(frame) for frame in frames) <= inside
    fuzz_decode(from_frames([bytes(frame[:60_000]) for frame in frames]))


def fuzz_dispatcher(data: bytes) -> None:
    """No message is answered twice, none raises, and a good client is served after all of them."""
    dispatcher = Dispatcher(offer_of(EchoPolicy()), _StillClock())
    attacker, good = b"attacker", b"good"
    for message in to_frames(data):
        frames = to_frames(message)
        answers = [r for r in dispatcher.receive(attacker, frames) if r.peer == attacker]
        seq = sequence_number(frames)
        assert sum(r.message.seq == seq for r in answers if seq) <= 1
        for reply in answers:
            encode(reply.message, reply.tensors)
        while (job := dispatcher.next_job()) is not None:
            dispatcher.finish(job, [_compute(r.observation) for r in job.requests], 0.0)
    if _stopped(dispatcher):  # an emergency stop is anybody's to press
        return
    (welcome,) = _say(dispatcher, good, Hello(1, 1, 1, 2**62 + 12345))
    assert isinstance(welcome, Welcome)
    _say(dispatcher, good, Obs(seq=2, epoch=welcome.epoch), observation(3))
    job = dispatcher.next_job()
    assert job is not None
    (reply,) = dispatcher.finish(job, [_compute(job.requests[0].observation)], 0.0)
    assert isinstance(reply.message, Chunk)


def fuzz_openpi(data: bytes) -> None:
    """Arrays of plain numbers, or ValueError."""
    with contextlib.suppress(ValueError):
        _require_plain(msgpack_numpy.unpacked(data))


def fuzz_groot(data: bytes) -> None:
    """Arrays of plain numbers, or ValueError."""
    with contextlib.suppress(ValueError):
        _require_plain(groot_codec.unpacked(data)[0])


def fuzz_jpeg(data: bytes) -> None:
    """A frame of its camera's shape, or a WireError."""
    names = (SPEC.cameras[0].name,)
    sent = {**observation(), names[0]: np.frombuffer(data, np.uint8)}
    try:
        kept, shown = jpeg_frames.checked(sent, names, SPEC)
        seen = jpeg_frames.decoded(kept, names, SPEC)
    except WireError:
        return
    SPEC.check_observation(shown)
    SPEC.check_observation(seen)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "decode": fuzz_decode,
    "lane": fuzz_lane,
    "dispatcher": fuzz_dispatcher,
    "openpi": fuzz_openpi,
    "groot": fuzz_groot,
    "jpeg": fuzz_jpeg,
}


def _compute(seen: Observation) -> Inference:
    return EchoPolicy().infer(seen, seed=0, loops=2, steps=10)


def _say(
    dispatcher: Dispatcher, peer: bytes, message: Message, tensors: Observation | None = None
) -> list[Message]:
    frames = [bytes(frame) for frame in encode(message, tensors)]
    return [reply.message for reply in dispatcher.receive(peer, frames)]


def _stopped(dispatcher: Dispatcher) -> bool:
    """Whether the emergency stop is pressed, or the table of sessions is full."""
    answers = _say(dispatcher, b"asker", Hello(1, 1, 1, 7))
    if not answers or not isinstance(answers[0], Welcome):
        return isinstance(answers[0], Error) and answers[0].code == "OVERLOAD"
    said = _say(dispatcher, b"asker", Obs(seq=2, epoch=answers[0].epoch), observation(1))
    while (job := dispatcher.next_job()) is not None:
        dispatcher.finish(job, [_compute(r.observation) for r in job.requests], 0.0)
    return any(isinstance(m, Error) and m.code == "STOPPED" for m in said)


def _require_plain(tree: object) -> None:
    if isinstance(tree, np.ndarray):
        assert tree.dtype.kind in "biuf"
    elif isinstance(tree, dict):
        for value in tree.values():
            _require_plain(value)
    elif isinstance(tree, list):
        for value in tree:
            _require_plain(value)
