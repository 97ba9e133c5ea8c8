"""GR00T's clients at our door. Both generations' packing is written out here independently."""

import contextlib
import importlib
import io
import os
import sys
from collections.abc import Generator
from typing import Any

import msgspec
import numpy as np
import pytest
import zmq
from tests.deploy.doors.behind import inside_of
from tests.deploy.echo_policy import (
    HORIZON,
    EchoPolicy,
    HeldPolicy,
    expected_actions,
    observation,
)

from loopdit.deploy.doors.groot import GrootDoor
from loopdit.deploy.doors.groot_codec import MSGPACK_NUMPY, NPY, packed, unpacked
from loopdit.deploy.serving.server import PolicyServer
from loopdit.errors import ServerError


def npy(array: np.ndarray) -> dict[str, Any]:
    """As GR00T N1.5's and N1.6's MsgSerializer."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return {"__ndarray_class__": True, "as_npy": file.getvalue()}


def msgpack_numpy(array: np.ndarray) -> dict[bytes, Any]:
    """As the msgpack-numpy package."""
    return {
        b"nd": True,
        b"type": array.dtype.str,
        b"kind": b"",
        b"shape": list(array.shape),
        b"data": array.tobytes(),
    }


PACKERS = {NPY: npy, MSGPACK_NUMPY: msgpack_numpy}


class GrootClient:
    """What GR00T's client does with its socket."""

    def __init__(self, port: int) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.REQ)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVTIMEO, 10_000)
        self._socket.connect(f"tcp://127.0.0.1:{port}")

    def call(self, endpoint: str, data: Any = None) -> Any:
        request = {"endpoint": endpoint} | ({} if data is None else {"data": data})
        return self.raw(msgspec.msgpack.encode(request))

    def raw(self, message: bytes) -> Any:
        self.ask(message)
        return self.answer()

    def ask(self, message: bytes) -> None:
        self._socket.send(message)

    def answer(self) -> Any:
        return msgspec.msgpack.decode(self._socket.recv())

    def close(self) -> None:
        self._context.destroy(linger=0)


@contextlib.contextmanager
def door_to(policy: EchoPolicy) -> Generator[GrootDoor]:
    with PolicyServer(policy, "tcp://127.0.0.1:0") as server:
        door = GrootDoor(inside_of(server), "127.0.0.1", 0, {})
        with contextlib.closing(door):
            yield door


@contextlib.contextmanager
def client_of(door: GrootDoor) -> Generator[GrootClient]:
    with contextlib.closing(GrootClient(door.port)) as client:
        yield client


def nested(value: float, generation: str) -> dict[str, Any]:
    pack, seen = PACKERS[generation], observation(value)
    return {
        "observation": {
            "video": {"front": pack(seen["images.front"][None, None])},
            "state": {"proprio": pack(seen["proprio"][None, None])},
            "language": {"annotation.human.task_description": [["lift the cube"]]},
        },
        "options": None,
    }


def array_in(answer: dict[Any, Any]) -> np.ndarray:
    """Read as GR00T's clients read, either way."""
    if "as_npy" in answer:
        return np.load(io.BytesIO(answer["as_npy"]), allow_pickle=False)
    data, dtype, shape = (answer[key] for key in (b"data", b"type", b"shape"))
    return np.frombuffer(data, dtype).reshape(shape)


@pytest.mark.parametrize("generation", [NPY, MSGPACK_NUMPY])
def test_a_nested_observation_gets_its_chunk_packed_as_it_was_asked(generation: str):
    with door_to(EchoPolicy()) as door, client_of(door) as client:
        for value in range(3):
            answer, info = client.call("get_action", nested(value, generation))
            actions = array_in(answer["action"])
            assert ("as_npy" in answer["action"]) == (generation == NPY)
            np.testing.assert_array_equal(actions[0], expected_actions(observation(value)))
            assert info["loops"] == 2


def test_a_flat_observation_of_n15_gets_the_action_alone():
    seen = observation(2.5)
    with door_to(EchoPolicy()) as door, client_of(door) as client:
        answer = client.call(
            "get_action",
            {
                "video.front": npy(seen["images.front"][None]),
                "state.proprio": npy(seen["proprio"][None].astype(np.float64)),
                "annotation.human.task_description": ["lift the cube"],
            },
        )
        np.testing.assert_array_equal(array_in(answer["action"]), expected_actions(seen))


def test_the_other_endpoints_answer():
    with door_to(EchoPolicy()) as door, client_of(door) as client:
        assert client.call("ping")["status"] == "ok"
        assert client.call("reset", {"options": None}) == {}
        modalities = client.call("get_modality_config")
        assert all("__ModalityConfig_class__" in config for config in modalities.values())
        keys = {name: config["as_json"]["modality_keys"] for name, config in modalities.items()}
        assert (keys["video"], keys["state"], keys["action"]) == (
            ["front"],
            ["proprio"],
            ["action"],
        )
        assert modalities["action"]["as_json"]["delta_indices"] == list(range(HORIZON))


def test_nobody_can_kill_the_server():
    with door_to(EchoPolicy()) as door, client_of(door) as client:
        assert "Unknown endpoint: kill" in client.call("kill")["error"]
        assert client.call("ping")["status"] == "ok"


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (b"", "not a GR00T request"),
        (b"\xc1", "not a GR00T request"),
        (msgspec.msgpack.encode([1]), "not a GR00T request: a request is one msgpack map"),
        (msgspec.msgpack.encode({"endpoint": "get_action", "data": 3}), "data is no map"),
        (msgspec.msgpack.encode({"endpoint": "get_action", "data": {}}), "lacks 'video.front'"),
        (
            msgspec.msgpack.encode(
                {"data": {b"nd": True, b"type": "|O", b"kind": b"O", b"data": b"cos\nsystem\n."}}
            ),
            "an array of objects",
        ),
        (
            msgspec.msgpack.encode({"data": npy(np.array(["text"]))}),
            "not of plain numbers",
        ),
    ],
)
def test_a_mistake_is_answered_in_words(message: bytes, words: str):
    with door_to(EchoPolicy()) as door, client_of(door) as client:
        assert words in client.raw(message)["error"]
        assert client.call("ping")["status"] == "ok"


def test_two_robots_at_once_are_refused_in_words():
    request = nested(1, NPY)
    request["observation"]["video"]["front"] = npy(np.zeros((2, 1, 4, 6, 3), np.uint8))
    with door_to(EchoPolicy()) as door, client_of(door) as client:
        assert "one observation at a time" in client.call("get_action", request)["error"]


def test_a_ping_is_answered_while_the_policy_computes():
    policy = HeldPolicy()
    with door_to(policy) as door, client_of(door) as busy, client_of(door) as other:
        busy.ask(msgspec.msgpack.encode({"endpoint": "get_action", "data": nested(1, NPY)}))
        assert policy.began.acquire(timeout=10)
        assert other.call("ping")["status"] == "ok"
        policy.let_go.release()
        answer, _ = busy.answer()
        np.testing.assert_array_equal(
            array_in(answer["action"])[0], expected_actions(observation(1))
        )


def test_a_port_in_use_is_one_clear_error():
    with (
        door_to(EchoPolicy()) as door,
        PolicyServer(EchoPolicy(), "tcp://127.0.0.1:0") as server,
        pytest.raises(ServerError, match=r"another groot_port="),
    ):
        GrootDoor(inside_of(server), "127.0.0.1", door.port, {})


@pytest.mark.parametrize("generation", [NPY, MSGPACK_NUMPY])
def test_arrays_arrive_as_they_were_packed(generation: str):
    turned = np.arange(6, dtype=np.float32).reshape(2, 3).T
    content = {"a": [turned, np.zeros((0, 2), np.int64)], "b": 3, "c": "text"}
    back, found = unpacked(packed(content, generation))
    assert found == generation
    np.testing.assert_array_equal(back["a"][0], turned)
    assert (back["a"][1].shape, back["b"], back["c"]) == ((0, 2), 3, "text")


@pytest.mark.skipif("GROOT_CLIENT" not in os.environ, reason="GROOT_CLIENT=FOLDER is not set")
def test_their_own_client_drives_the_door():
    """FOLDER: one from which gr00t.policy.server_client can be imported, as a checkout with its
    packages."""
    sys.path.insert(0, os.environ["GROOT_CLIENT"])
    theirs = importlib.import_module("gr00t.policy.server_client")
    with door_to(EchoPolicy()) as door:
        client = theirs.PolicyClient("127.0.0.1", door.port)
        assert client.ping()
        modalities = client.get_modality_config()
        assert modalities["video"].modality_keys == ["front"]
        assert modalities["action"].delta_indices == list(range(HORIZON))
        seen = observation(4)
        action, info = client.get_action(
            {
                "video": {"front": seen["images.front"][None, None]},
                "state": {"proprio": seen["proprio"][None, None]},
                "language": {"annotation.human.task_description": [["lift the cube"]]},
            }
        )
        np.testing.assert_array_equal(action["action"][0], expected_actions(seen))
        assert info["loops"] == 2
        client.reset()
        with pytest.raises(RuntimeError, match="Unknown endpoint"):
            client.kill_server()
        assert client.ping()
