"""openpi's protocol against a websocket server that packs as openpi-client 0.1.2 does.

Its packing is written out below, byte by byte. With OPENPI_CLIENT=FOLDER, where FOLDER has the
unpacked wheels of openpi-client and msgpack, it is compared with the real `msgpack_numpy`, too.
"""

import importlib
import os
import struct
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.eval.counting_env import CountingEnv
from websockets.sync.server import ServerConnection, serve

from loopdit.datasets.spec import TensorSpec
from loopdit.deploy.doors.key_names import keys_for, parse_keys
from loopdit.deploy.doors.msgpack_numpy import packed, unpacked
from loopdit.envs.arm_env import arm_spec
from loopdit.errors import ConfigError, LoopditError, ServerError
from loopdit.eval.rollouts.openpi_policy import (
    OpenPiClient,
    OpenPiPolicy,
)
from loopdit.eval.rollouts.policy_sources import open_policy

SPEC = arm_spec(16)
GREETING = b"\x81\xa6policy\xa3pi0"  # {"policy": "pi0"}
CHUNK = np.arange(4 * 7, dtype=np.float64).reshape(4, 7) / 7
OBSERVATION = {
    "images.front": np.full((16, 16, 3), 7, np.uint8),
    "images.wrist": np.full((16, 16, 3), 8, np.uint8),
    "proprio": np.arange(13, dtype=np.float32),
}


def openpi_array(array: np.ndarray) -> bytes:
    """An array as openpi's `msgpack_numpy.packb` writes it."""

    def binary(content: bytes) -> bytes:
        if len(content) < 256:
            return b"\xc4" + bytes([len(content)]) + content
        return b"\xc5" + struct.pack(">H", len(content)) + content

    dtype = array.dtype.str.encode()
    fields = [
        (b"__ndarray__", b"\xc3"),
        (b"data", binary(array.tobytes())),
        (b"dtype", bytes([0xA0 + len(dtype)]) + dtype),
        (b"shape", bytes([0x90 + array.ndim, *array.shape])),
    ]
    return b"\x84" + b"".join(binary(name) + value for name, value in fields)


def answer(actions: np.ndarray) -> bytes:
    """{"actions": actions, "server_timing": {"infer_ms": 1.5}}."""
    timing = b"\xadserver_timing\x81\xa8infer_ms\xcb" + struct.pack(">d", 1.5)
    return b"\x82\xa7actions" + openpi_array(actions) + timing


@contextmanager
def server(
    *answers: bytes | str | None, greeting: bytes | str | None = GREETING
) -> Generator[tuple[str, list[Any]]]:
    """Its address and what it is asked. `answers` in turn, None to hang up and a string to hang up
    after it, over all connections; then the last one again."""
    asked: list[Any] = []
    left = list(answers) or [answer(CHUNK)]

    def talk(connection: ServerConnection) -> None:
        if greeting is None:
            return
        connection.send(greeting)
        for message in connection:
            asked.append(message)
            reply = left.pop(0) if len(left) > 1 else left[0]
            if reply is None:
                return
            connection.send(reply)
            if isinstance(reply, str):
                return

    with serve(talk, "127.0.0.1", 0, compression=None) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            yield f"openpi://127.0.0.1:{running.socket.getsockname()[1]}", asked
        finally:
            running.shutdown()
            thread.join()


def test_arrays_are_packed_byte_for_byte_as_openpi_packs_them():
    for array in (CHUNK, OBSERVATION["proprio"], np.zeros((3, 0), np.int64), np.array([True])):
        assert packed({"a": array}) == b"\x81\xa1a" + openpi_array(array)
        back = unpacked(b"\x81\xa1a" + openpi_array(array))["a"]
        assert (back.dtype, back.shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(back, array)


def test_an_array_that_is_not_in_c_order_arrives_as_it_is():
    turned = np.arange(6, dtype=np.float32).reshape(2, 3).T
    np.testing.assert_array_equal(unpacked(packed({"a": turned}))["a"], turned)


@pytest.mark.skipif("OPENPI_CLIENT" not in os.environ, reason="OPENPI_CLIENT=FOLDER is not set")
def test_openpis_own_packer_agrees():
    sys.path.insert(0, os.environ["OPENPI_CLIENT"])
    theirs = importlib.import_module("openpi_client.msgpack_numpy")
    request = {**OBSERVATION, "prompt": "lift", "n": 3, "scalar": CHUNK, "nested": {"x": CHUNK}}
    assert packed(request) == theirs.packb(request)
    back = unpacked(theirs.packb({**request, "one": np.float32(1.5)}))
    assert back["one"] == np.float32(1.5)
    for name, value in OBSERVATION.items():
        np.testing.assert_array_equal(back[name], value)
        np.testing.assert_array_equal(theirs.unpackb(packed(request))[name], value)


def test_the_server_is_asked_in_its_own_words_and_its_chunk_is_played():
    with server() as (address, asked), open_policy(address, "", "") as source:
        assert (source.kind, source.spec, source.loops) == ("openpi", None, ())
        assert source.chosen_loops([1, 2]) == [0]
        env = CountingEnv(3, 3)
        env.policy_spec = SPEC
        policy = source.make(env, 0, 0)
        policy.reset(1_000_000)
        found = policy.chunk(OBSERVATION, "pick up the red cube")
    np.testing.assert_array_equal(found.actions, CHUNK.astype(np.float32))
    assert (found.actions.dtype, found.loops) == (np.float32, None)
    request = unpacked(asked[0])
    assert sorted(request) == [
        "observation/image",
        "observation/state",
        "observation/wrist_image",
        "prompt",
    ]
    assert request["prompt"] == "pick up the red cube"
    np.testing.assert_array_equal(request["observation/image"], OBSERVATION["images.front"])
    np.testing.assert_array_equal(request["observation/state"], OBSERVATION["proprio"])


def test_keys_can_be_named_and_the_others_stay():
    keys = keys_for(SPEC, parse_keys("images.front=image/exterior,instruction=task"))
    assert keys == {
        "images.front": "image/exterior",
        "images.wrist": "observation/wrist_image",
        "proprio": "observation/state",
        "instruction": "task",
    }
    third = TensorSpec("images.side", (16, 16, 3), "uint8")
    assert keys_for(replace(SPEC, observations=(third,)), {})["images.side"] == "images.side"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("images.front", "'images.front' is not OURS=THEIRS"),
        ("images.left=a", "'images.left', which is not observed here. It is: images.fr"),
        ("images.front=same,proprio=same", "would both be 'same'"),
    ],
)
def test_keys_that_do_not_fit_are_refused(keys: str, said: str):
    with pytest.raises(ConfigError, match=said):
        keys_for(SPEC, parse_keys(keys))


@pytest.mark.parametrize("address", ["openpi://127.0.0.1:1", "openpi://", "openpi://host/path"])
def test_a_server_that_is_not_there_is_one_sentence(address: str):
    with pytest.raises(LoopditError, match=r"Start one|Use openpi://HOST:PORT"):
        OpenPiClient(address)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (b"\xc1", "is not openpi's protocol"),
        (b"\x93\x01\x02\x03", "a map was due, and came as list"),
        (b"\x81\xa1a\x01", "actions in the answer .* are missing"),
        (answer(np.zeros(7)), r"are of shape \(7,\); \(H, A\) was due"),
        (answer(np.zeros((0, 7))), r"are of shape \(0, 7\)"),
        (answer(np.full((2, 7), np.nan)), "are not all finite"),
        (answer(np.zeros((2, 14))), "commands 14 numbers and the environment takes 7"),
        (answer(CHUNK).replace(b"<f8", b"|O8"), "is not openpi's protocol"),
        (answer(CHUNK).replace(b"\x92\x04\x07", b"\x92\x05\x07"), "is not openpi's protocol"),
        ("Traceback:\nKeyError: 'observation/image2'", "failed: KeyError: 'observation/image2'"),
        (None, "hung up before its answer"),
    ],
)
def test_an_answer_that_makes_no_sense_is_refused_and_the_next_request_works(
    reply: bytes | str | None, said: str
):
    with server(reply, answer(CHUNK)) as (address, _), closing(OpenPiClient(address)) as client:
        policy = OpenPiPolicy(client, SPEC, {})
        with pytest.raises(ServerError, match=said):
            policy.chunk(OBSERVATION, "lift")
        np.testing.assert_allclose(policy.chunk(OBSERVATION, "lift").actions, CHUNK)


@pytest.mark.parametrize("greeting", [None, b"\xc1", b"\x01", "busy"])
def test_a_server_that_does_not_greet_as_openpis_is_refused(greeting: bytes | str | None):
    with (
        server(greeting=greeting) as (address, _),
        pytest.raises(ServerError, match=r"its greeting|failed: busy"),
    ):
        OpenPiClient(address)


def test_a_server_that_does_not_answer_in_time_is_said_so_and_asked_anew():
    release = threading.Event()
    slow: list[Callable[[], object]] = [release.wait]

    def talk(connection: ServerConnection) -> None:
        connection.send(GREETING)
        for _ in connection:
            if slow:
                slow.pop()()
            connection.send(answer(CHUNK))

    with serve(talk, "127.0.0.1", 0, compression=None) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        address = f"openpi://127.0.0.1:{running.socket.getsockname()[1]}"
        with closing(OpenPiClient(address, timeout_s=0.2)) as client:
            with pytest.raises(ServerError, match=r"did not send its answer in 0.2 s"):
                client.infer({"prompt": "x"})
            release.set()
            assert client.infer({"prompt": "x"}).shape == (4, 7)
        running.shutdown()
        thread.join()
