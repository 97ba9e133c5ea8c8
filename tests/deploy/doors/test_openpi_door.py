"""openpi's clients at our door: the real one where OPENPI_CLIENT=FOLDER has it, and its bytes.

The frames and answers are openpi-client 0.1.2's, by `test_openpi_policy.py`'s byte-for-byte checks.
"""

import contextlib
import importlib
import os
import sys
import time
import urllib.request
from collections.abc import Generator
from typing import Any

import numpy as np
import pytest
from tests.deploy.doors.behind import inside_of
from tests.deploy.echo_policy import (
    HORIZON,
    SPEC,
    EchoPolicy,
    HeldPolicy,
    expected_actions,
    observation,
)
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from loopdit.deploy.doors.msgpack_numpy import packed, unpacked
from loopdit.deploy.doors.openpi import OpenPiDoor
from loopdit.deploy.serving.server import PolicyServer
from loopdit.errors import ConfigError, ServerError
from loopdit.eval.rollouts.openpi_policy import OpenPiClient

KEYS = ("observation/image", "observation/state")


@contextlib.contextmanager
def door_to(policy: EchoPolicy, keys: dict[str, str] | None = None) -> Generator[OpenPiDoor]:
    with PolicyServer(policy, "tcp://127.0.0.1:0") as server:
        door = OpenPiDoor(inside_of(server), "127.0.0.1", 0, keys or {})
        with contextlib.closing(door):
            yield door


def theirs(value: float, brightness: int = 0) -> dict[str, Any]:
    seen = observation(value, brightness)
    return {KEYS[0]: seen["images.front"], KEYS[1]: seen["proprio"], "prompt": "lift"}


@contextlib.contextmanager
def connection_to(door: OpenPiDoor) -> Generator[tuple[ClientConnection, dict[str, Any]]]:
    with connect(f"ws://127.0.0.1:{door.port}", compression=None) as connection:
        yield connection, unpacked(bytes(connection.recv(timeout=10, decode=False)))


def ask(connection: ClientConnection, request: Any) -> Any:
    connection.send(packed(request))
    answer = connection.recv(timeout=10)
    return unpacked(answer) if isinstance(answer, bytes) else answer


def test_the_greeting_says_what_to_send():
    with door_to(EchoPolicy()) as door, connection_to(door) as (_, greeting):
        assert greeting["observation_spec"] == {
            KEYS[0]: {"shape": [4, 6, 3], "dtype": "uint8"},
            KEYS[1]: {"shape": [3], "dtype": "float32"},
        }
        assert (greeting["action_horizon"], greeting["action_dim"]) == (HORIZON, 3)
        assert greeting["control_period_s"] == SPEC.control_period_s


def test_what_is_sent_reaches_the_policy_and_its_chunk_comes_back():
    with door_to(EchoPolicy()) as door, connection_to(door) as (connection, _):
        for value in range(3):
            answer = ask(connection, theirs(value, 9))
            np.testing.assert_array_equal(
                answer["actions"], expected_actions(observation(value, 9))
            )
            assert answer["server_timing"]["infer_ms"] > 0


def test_our_own_openpi_client_is_served_by_our_own_door():
    with door_to(EchoPolicy()) as door:
        client = OpenPiClient(f"openpi://127.0.0.1:{door.port}")
        with contextlib.closing(client):
            np.testing.assert_array_equal(
                client.infer(theirs(2.0)), expected_actions(observation(2.0))
            )


def test_wider_floats_are_taken_and_other_keys_ignored():
    with door_to(EchoPolicy()) as door, connection_to(door) as (connection, _):
        request = theirs(0.5) | {KEYS[1]: np.array([0.5, -0.5, 0.5]), "extra": np.zeros(4)}
        np.testing.assert_array_equal(
            ask(connection, request)["actions"], expected_actions(observation(0.5))
        )


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({KEYS[1]: np.zeros(3, np.float32)}, "lacks 'observation/image'"),
        (theirs(0) | {KEYS[0]: np.zeros((6, 4, 3), np.uint8)}, "observation/image is uint8 (6, 4"),
        (theirs(0) | {KEYS[0]: np.zeros((4, 6, 3))}, "observation/image is float64"),
        (theirs(0) | {KEYS[1]: np.full(3, np.nan, np.float32)}, "not finite"),
        ([1, 2], "one msgpack map"),
    ],
)
def test_a_mistake_is_answered_in_words_and_the_connection_lives_on(request_: Any, words: str):
    with door_to(EchoPolicy()) as door, connection_to(door) as (connection, _):
        answer = ask(connection, request_)
        assert isinstance(answer, str)
        assert words in answer
        assert "Traceback" not in answer
        assert ask(connection, theirs(1))["actions"].shape == (HORIZON, 3)


@pytest.mark.parametrize("message", [b"", b"\xc1", b"\x81\xa1a", bytes(range(200, 256)), "text"])
def test_what_is_no_request_is_answered_in_words(message: str | bytes):
    with door_to(EchoPolicy()) as door, connection_to(door) as (connection, _):
        connection.send(message)
        assert isinstance(connection.recv(timeout=10), str)
        assert ask(connection, theirs(1))["actions"].shape == (HORIZON, 3)


def test_a_message_beyond_any_observation_ends_its_connection_alone():
    with door_to(EchoPolicy()) as door, connection_to(door) as (good, _):
        with connection_to(door) as (bad, _):
            bad.send(bytes(1_000_000))
            with pytest.raises(ConnectionClosed):
                bad.recv(timeout=10)
        assert ask(good, theirs(1))["actions"].shape == (HORIZON, 3)


def test_health_and_new_clients_are_answered_while_the_policy_computes():
    policy = HeldPolicy()
    with door_to(policy) as door, connection_to(door) as (busy, _):
        busy.send(packed(theirs(3)))
        assert policy.began.acquire(timeout=10)
        began = time.monotonic()
        with urllib.request.urlopen(f"http://127.0.0.1:{door.port}/healthz", timeout=5) as health:
            assert (health.status, health.read()) == (200, b"OK\n")
        with connection_to(door) as (_, greeting):
            assert greeting["action_horizon"] == HORIZON
        assert time.monotonic() - began < 5
        policy.let_go.release()
        answer = unpacked(bytes(busy.recv(timeout=10, decode=False)))
        np.testing.assert_array_equal(answer["actions"], expected_actions(observation(3)))


def test_two_clients_get_their_own_answers():
    with (
        door_to(EchoPolicy()) as door,
        connection_to(door) as (one, _),
        connection_to(door) as (two, _),
    ):
        for value in range(5):
            for connection, sign in ((one, 1), (two, -1)):
                expected = expected_actions(observation(sign * value))
                answer = ask(connection, theirs(sign * value))
                np.testing.assert_array_equal(answer["actions"], expected)


def test_keys_are_what_the_user_says_they_are():
    keys = {"images.front": "cam_high", "proprio": "state"}
    with door_to(EchoPolicy(), keys) as door, connection_to(door) as (connection, greeting):
        assert list(greeting["observation_spec"]) == ["cam_high", "state"]
        seen = observation(4)
        answer = ask(connection, {"cam_high": seen["images.front"], "state": seen["proprio"]})
        np.testing.assert_array_equal(answer["actions"], expected_actions(seen))
    with (
        pytest.raises(ConfigError, match=r"openpi_keys names 'images\.top'"),
        door_to(EchoPolicy(), {"images.top": "x"}),
    ):
        pass


def test_a_port_in_use_is_one_clear_error():
    with (
        door_to(EchoPolicy()) as door,
        PolicyServer(EchoPolicy(), "tcp://127.0.0.1:0") as server,
        pytest.raises(ServerError, match=r"another openpi_port="),
    ):
        OpenPiDoor(inside_of(server), "127.0.0.1", door.port, {})


@pytest.mark.filterwarnings("ignore:connect\\(\\) must be used:DeprecationWarning")  # theirs
@pytest.mark.skipif("OPENPI_CLIENT" not in os.environ, reason="OPENPI_CLIENT=FOLDER is not set")
def test_the_published_client_drives_the_door():
    sys.path.insert(0, os.environ["OPENPI_CLIENT"])
    module = importlib.import_module("openpi_client.websocket_client_policy")
    with door_to(EchoPolicy()) as door:
        client = module.WebsocketClientPolicy("127.0.0.1", door.port)
        assert client.get_server_metadata()["observation_spec"][KEYS[1]]["shape"] == [3]
        np.testing.assert_array_equal(
            client.infer(theirs(2, 8))["actions"], expected_actions(observation(2, 8))
        )
        with pytest.raises(RuntimeError, match="lacks 'observation/image'"):
            client.infer({"prompt": "lift"})
        client._ws.close()
