import contextlib
import re
import runpy
import struct
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from loopdit.deploy.messages import (
    Bye,
    Chunk,
    Error,
    ErrorCode,
    Hello,
    Message,
    Obs,
    Ping,
    Reset,
    Timing,
    WireError,
    error,
)
from loopdit.deploy.protocol import DTYPES, MAGIC, MAX_HEADER_BYTES, decode, encode

CAP = 1 << 20
GOLDENS = Path(__file__).parents[1] / "goldens"
made: dict[str, Any] = runpy.run_path(str(GOLDENS / "make_wire.py"))
golden_messages: dict[str, tuple[Message, dict[str, np.ndarray]]] = made["golden_messages"]()

counts = st.integers(0, 2**63 - 1)
arrays = st.sampled_from(sorted(DTYPES)).flatmap(
    lambda name: hnp.arrays(name, hnp.array_shapes(min_dims=0, min_side=0, max_side=5))
)
observations = st.builds(
    Obs,
    seq=counts,
    epoch=counts,
    step=counts,
    observed_ns=counts,
    budget_us=counts,
    loops=counts,
    steps=counts,
    seed=counts,
    instruction=st.text(max_size=200),
)


def sent(frames: list[bytes | memoryview]) -> list[bytes]:
    """As they arrive on the other side."""
    return [bytes(frame) for frame in frames]


def header(*fields: object) -> bytes:
    return MAGIC + msgspec.msgpack.encode(fields)


def refused(frames: list[bytes], max_bytes: int = CAP) -> WireError:
    with pytest.raises(WireError) as caught:
        decode(frames, max_bytes)
    return caught.value


@given(message=observations, tensors=st.dictionaries(st.text(max_size=20), arrays, max_size=4))
def test_an_observation_arrives_as_it_was_sent(message: Obs, tensors: dict[str, np.ndarray]):
    received, arrived = decode(sent(encode(message, tensors)), CAP)
    assert msgspec.structs.replace(received, tensors=()) == message
    assert list(arrived) == list(tensors)
    for name, array in tensors.items():
        assert (arrived[name].dtype, arrived[name].shape) == (array.dtype, array.shape)
        assert arrived[name].tobytes() == array.tobytes()


@given(st.one_of(st.builds(Reset, counts, counts, counts), st.builds(Bye, counts, st.text())))
def test_a_message_without_tensors_arrives_as_it_was_sent(message: Message):
    assert decode(sent(encode(message)), CAP) == (message, {})


def test_a_strided_or_big_endian_array_arrives_with_the_same_values():
    grid = np.arange(24, dtype=np.float32).reshape(4, 6)
    tensors = {"strided": grid[::2, ::3], "columns": grid.T, "swapped": grid.astype(">f4")}
    frames = sent(encode(Obs(seq=1, epoch=1), tensors))
    assert frames[3] == grid.astype("<f4").tobytes()
    _, arrived = decode(frames, CAP)
    for name, array in tensors.items():
        np.testing.assert_array_equal(arrived[name], array)


@pytest.mark.parametrize("name", golden_messages)
def test_the_bytes_of_each_message_are_those_of_wire_v1(name: str):
    message, tensors = golden_messages[name]
    stored = (GOLDENS / "wire_v1" / f"{name}.bin").read_bytes()
    assert made["to_file"](message, tensors) == stored


@pytest.mark.parametrize("name", golden_messages)
def test_stored_messages_of_wire_v1_are_read(name: str):
    stored = (GOLDENS / "wire_v1" / f"{name}.bin").read_bytes()
    frames: list[bytes] = []
    while stored:
        (length,) = struct.unpack_from("<I", stored)
        frames.append(stored[4 : 4 + length])
        stored = stored[4 + length :]
    message, tensors = golden_messages[name]
    received, arrived = decode(frames, CAP)
    if isinstance(received, (Obs, Chunk)):
        received = msgspec.structs.replace(received, tensors=())
    assert received == message
    for key, array in tensors.items():
        np.testing.assert_array_equal(arrived[key], array)


@pytest.mark.parametrize("name", golden_messages)
def test_fields_of_a_newer_version_are_ignored(name: str):
    message, tensors = golden_messages[name]
    frames = sent(encode(message, tensors))
    fields = msgspec.msgpack.decode(frames[0][4:])
    newer = [header(*fields, "a field of tomorrow", {"with": [1, 2]}), *frames[1:]]
    assert type(decode(newer, CAP)[0]) is type(message)


def test_fields_that_an_older_version_does_not_send_take_their_defaults():
    assert decode([header("OBS", 1, 1)], CAP)[0] == Obs(seq=1, epoch=1)
    assert decode([header("HELLO", 1, 1, 1, 9)], CAP)[0] == Hello(1, 1, 1, 9)
    assert decode([header("CHUNK", 1, 1, 0, 0, 2, 10, "m", [5, 6])], CAP)[0] == Chunk(
        1, 1, 0, 0, 2, 10, "m", Timing(queue=5, decode=6)
    )


def test_an_error_code_of_a_newer_version_is_read_as_text():
    received, _ = decode([header("ERROR", 3, "TOO_TIRED", True, "later")], CAP)
    assert received == Error(3, "TOO_TIRED", True, "later")
    assert WireError("TOO_TIRED", "later").code == "TOO_TIRED"


@pytest.mark.parametrize(
    ("frames", "code", "seq", "words"),
    [
        ([], ErrorCode.MALFORMED, 0, "begins b''"),
        ([b"GET / HTTP/1.1"], ErrorCode.MALFORMED, 0, "begins b'GET '"),
        ([b"LDP2\x90"], ErrorCode.VERSION, 0, "speaks b'LDP1'"),
        ([MAGIC], ErrorCode.MALFORMED, 0, "not a msgpack array"),
        ([MAGIC + b"\xc1"], ErrorCode.MALFORMED, 0, "not a msgpack array"),
        ([header()], ErrorCode.MALFORMED, 0, "not a msgpack array"),
        ([header("STOP", 7)], ErrorCode.UNKNOWN_KIND, 7, "'STOP' is not known"),
        ([header("OBS")], ErrorCode.MALFORMED, 0, "header of 'OBS'"),
        ([header("OBS", 7, "one")], ErrorCode.MALFORMED, 7, "Expected `int`"),
        ([header("OBS", -1, 1)], ErrorCode.MALFORMED, 0, "header of 'OBS'"),
        ([header("OBS", 2**64 - 1, 1)], ErrorCode.MALFORMED, 0, "header of 'OBS'"),
        ([header("PING", 7), b"extra"], ErrorCode.MALFORMED, 7, "1 tensor frames"),
        ([MAGIC + bytes(MAX_HEADER_BYTES)], ErrorCode.TOO_BIG, 0, "header of 65540 bytes"),
    ],
)
def test_a_bad_header_is_refused_with_its_reason(
    frames: list[bytes], code: str, seq: int, words: str
):
    fault = refused(frames)
    assert (fault.code, fault.seq) == (code, seq)
    assert words in str(fault)


@pytest.mark.parametrize(
    ("described", "frames", "code", "words"),
    [
        ([("x", "float32", (2,))], [], ErrorCode.MALFORMED, "0 tensor frames where the header"),
        ([("x", "float32", (2,))], [bytes(7)], ErrorCode.SHAPE, "x: float32 (2,) is 8 bytes"),
        ([("x", "float32", (3,))], [bytes(8)], ErrorCode.SHAPE, "x: float32 (3,) is 12 bytes"),
        ([("x", "object", (1,))], [bytes(8)], ErrorCode.DTYPE, "x has dtype 'object'"),
        ([("x", "bool", (1,))], [b"\x02"], ErrorCode.DTYPE, "x has dtype 'bool'"),
        ([("x", "uint8", (2**62, 4))], [b""], ErrorCode.SHAPE, "x: uint8"),
        ([("x", "uint8", (0, 2**62))], [b""], ErrorCode.SHAPE, "x: uint8"),
        ([("x", "uint8", (1,) * 9)], [b"1"], ErrorCode.SHAPE, "x has 9 axes"),
        ([("x", "uint8", (1,)), ("x", "uint8", (1,))], [b"1", b"2"], "MALFORMED", "occurs twice"),
        ([("x", "uint8", (CAP + 1,))], [bytes(CAP + 1)], ErrorCode.TOO_BIG, "bytes of tensors"),
        ([("x", "uint8", (1,))] * 65, [b"1"] * 65, ErrorCode.TOO_BIG, "65 tensors; at most 64"),
    ],
)
def test_a_frame_that_does_not_fit_its_description_is_refused_before_it_is_viewed(
    described: list[object], frames: list[bytes], code: str, words: str
):
    message = header("OBS", 7, 1, 0, 0, 0, 0, 0, 0, "", described)
    fault = refused([message, *frames])
    assert (fault.code, fault.seq) == (code, 7)
    assert words in str(fault)


@given(st.lists(st.binary(max_size=64), max_size=4))
def test_random_frames_are_refused_and_nothing_else_happens(frames: list[bytes]):
    assert isinstance(refused(frames), WireError)


@given(data=st.data(), name=st.sampled_from(sorted(golden_messages)))
def test_a_damaged_message_is_read_or_refused(data: st.DataObject, name: str):
    message, tensors = golden_messages[name]
    frames = [bytearray(frame) for frame in sent(encode(message, tensors))]
    for _ in range(data.draw(st.integers(1, 4))):
        frame = frames[data.draw(st.integers(0, len(frames) - 1))]
        at = data.draw(st.integers(0, len(frame) - 1))
        frame[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        if not frame:
            break
    with contextlib.suppress(WireError):  # and no other error
        decode([bytes(frame) for frame in frames], CAP)


def test_an_array_the_wire_does_not_carry_is_refused_where_it_is_sent():
    with pytest.raises(WireError, match="x has dtype object; the wire carries uint8") as caught:
        encode(Obs(seq=1, epoch=1), {"x": np.array([None])})
    assert caught.value.code == ErrorCode.DTYPE


@given(st.text(max_size=2000))
def test_an_error_message_is_cut_to_512_bytes_between_characters(text: str):
    cut = error(ErrorCode.INTERNAL, text, 1).message
    assert len(cut.encode()) <= 512
    assert text.startswith(cut)
    assert len(cut.encode()) > 508 or cut == text


def test_arrived_tensors_are_views_of_the_frame():
    frames = sent(encode(Obs(seq=1, epoch=1), {"x": np.arange(1000, dtype=np.float32)}))
    _, tensors = decode(frames, CAP)
    assert np.shares_memory(tensors["x"], np.frombuffer(frames[1], np.uint8))
    assert not tensors["x"].flags.writeable


def test_nothing_of_a_message_is_unpickled():
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (pytest.fail, ("the frame was unpickled",))

    import pickle

    bomb = pickle.dumps(Bomb())
    assert refused([bomb]).code == ErrorCode.MALFORMED
    assert refused([MAGIC + bomb]).code == ErrorCode.MALFORMED
    described = [("x", "object", (1,))]
    message = header("OBS", 7, 1, 0, 0, 0, 0, 0, 0, "", described)
    assert refused([message, bomb]).code == ErrorCode.DTYPE
    assert decode(sent(encode(Ping(seq=1))), CAP)[0] == Ping(seq=1)


def test_the_written_protocol_names_every_field_and_code():
    page = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
    for message, _ in golden_messages.values():
        kind = message.__struct_config__.tag
        section = re.search(rf"^### {kind}\b.*?(?=^### |^## )", page, re.MULTILINE | re.DOTALL)
        assert section, kind
        fields = [name for name in message.__struct_fields__ if name != "seq"]
        cells = re.findall(r"^\| ([\w, ]+) \||`(\w+)` \(", section[0], re.MULTILINE)
        named = [name for cell in cells for name in re.split(", ", cell[0] or cell[1])]
        in_order = [name for name in dict.fromkeys(named) if name in fields]
        assert in_order == fields, f"{kind}: missing or misplaced"
    for code in set(ErrorCode) - {ErrorCode.TIMEOUT, ErrorCode.HANDSHAKE}:  # never sent
        row = re.search(rf"^\| {code} \|.*\|(.*)\|$", page, re.MULTILINE)
        assert row, code
        assert (row[1].strip() == "yes") == WireError(code, "").retryable
