"""Doors and ports of a server whose policy is not warm yet."""

import http.client
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import closing, contextmanager
from typing import Any

import numpy as np
import pytest
from tests.deploy.doors.behind import inside_of
from tests.deploy.doors.test_groot_door import GrootClient
from tests.deploy.doors.test_openpi_door import ask, connection_to, theirs
from tests.deploy.echo_policy import EchoPolicy, expected_actions, observation
from tests.deploy.operation.conftest import a_free_port
from tests.deploy.serving.serving_process import serving
from websockets.sync.client import connect

from loopdit.deploy.doors.groot import GrootDoor
from loopdit.deploy.doors.inside import Inside
from loopdit.deploy.doors.openpi import OpenPiDoor
from loopdit.deploy.serving.server import PolicyServer


@contextmanager
def cold() -> Generator[tuple[PolicyServer, Inside, OpenPiDoor, GrootDoor]]:
    server = PolicyServer(EchoPolicy(), "tcp://127.0.0.1:0")
    inside = inside_of(server, begun=False)
    with (
        closing(OpenPiDoor(inside, "127.0.0.1", 0, {})) as openpi,
        closing(GrootDoor(inside, "127.0.0.1", 0, {})) as groot,
    ):
        yield server, inside, openpi, groot
        inside.close()
        server.stop()


def health_at(port: int) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/healthz")
    answer = connection.getresponse()
    found = answer.status, answer.read().decode().strip()
    connection.close()
    return found


def test_health_says_that_it_warms_up_and_who_comes_early_is_served_when_it_is_warm():
    with cold() as (server, inside, openpi, groot):
        assert health_at(openpi.port) == (503, "warming")
        with closing(GrootClient(groot.port)) as robot:
            assert robot.call("ping")["message"] == "Server is warming up"
        answers: list[Any] = []

        def early() -> None:
            with connection_to(openpi) as (connection, greeting):
                answers.append(greeting["model_id"])
                answers.append(ask(connection, theirs(1))["actions"])

        waiting = threading.Thread(target=early)
        waiting.start()
        time.sleep(0.2)
        assert not answers
        server.start()
        inside.begin()
        waiting.join(10)
        assert answers[0] == "echo-0"
        np.testing.assert_array_equal(answers[1], expected_actions(observation(1)))
        assert health_at(openpi.port) == (200, "OK")


def test_who_waits_when_it_is_stopped_is_told():
    with (
        cold() as (_, inside, openpi, _),
        connect(f"ws://127.0.0.1:{openpi.port}", compression=None) as connection,
    ):
        inside.close()
        assert connection.recv(timeout=10) == "the server is stopping."


@pytest.mark.system
def test_ports_are_bound_before_the_warm_up():
    slow = ("backend=onnxruntime", "steps=200")
    address = "address=tcp://127.0.0.1:0"
    console, openpi = a_free_port(), a_free_port()
    with serving(*slow, address, f"http_port={console}", f"openpi_port={openpi}") as server:
        server.until("page ")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://127.0.0.1:{console}/healthz", timeout=10)
        with refused.value as answer:
            assert (answer.code, json.load(answer)["status"]) == (503, "warming")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for option in ("openpi_port", "groot_port", "http_port"):
            began = time.monotonic()
            with serving("policy=zeros", address, f"{option}={port}") as server:
                status, said = server.end()
            assert status == 1
            assert f"{option}=" in said
            assert time.monotonic() - began < 60
