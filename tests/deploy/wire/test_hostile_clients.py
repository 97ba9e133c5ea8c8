"""A real server among clients that flood, do not read, or speak half a message or nonsense."""

import contextlib
import os
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from tests.deploy.echo_policy import SPEC, EchoPolicy, expected_actions, observation
from tests.deploy.raw_client import ANY_PORT, RawClient

from loopdit.deploy.client import PolicyClient
from loopdit.deploy.messages import Chunk, Error, ErrorCode, Hello, Obs, Ping
from loopdit.deploy.protocol import MAGIC, encode
from loopdit.deploy.serving.server import PolicyServer

# What libzmq says first: the signature, ZMTP 3.1, the NULL mechanism, as a client.
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01NULL" + bytes(16) + b"\0" + bytes(31)


@pytest.fixture
def server() -> Iterator[PolicyServer]:
    with PolicyServer(EchoPolicy(), ANY_PORT) as running:
        yield running
        assert running.running


def serves_others(server: PolicyServer, value: float = 3.0) -> bool:
    """Whether a client that behaves gets the chunk for what it sends."""
    with PolicyClient(server.endpoint, timeout_s=10, shared_memory=False) as good:
        actions = good.infer(observation(value)).actions
        return np.array_equal(actions, expected_actions(observation(value)))


def plain_socket(server: PolicyServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(server.endpoint.rpartition(":")[2])), 10)


@pytest.mark.parametrize(
    "start", [b"", b"\xff", GREETING[:30], GREETING, b"GET / HTTP/1.1\r\n\r\n", b"\0" * 64]
)
def test_bytes_that_are_no_zeromq_leave_the_others_served(server: PolicyServer, start: bytes):
    random = np.random.default_rng(0)
    for _ in range(5):
        with plain_socket(server) as attacker:
            with_noise = start + random.bytes(int(random.integers(1, 3000)))
            with contextlib.suppress(ConnectionError):  # it hung up already
                attacker.sendall(with_noise)
            assert serves_others(server)


def test_half_a_message_holds_nobody_up(server: PolicyServer):
    with plain_socket(server) as attacker:
        attacker.sendall(GREETING)
        attacker.recv(64)
        ready = b"\x05READY\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER"
        attacker.sendall(b"\x04" + bytes([len(ready)]) + ready)
        # The first half of a frame that says it is 1000 bytes long, and of one of 2^60.
        attacker.sendall(b"\x02" + struct.pack(">Q", 1000) + MAGIC)
        assert serves_others(server)
    with plain_socket(server) as attacker:
        attacker.sendall(GREETING)
        attacker.recv(64)
        attacker.sendall(b"\x04" + bytes([len(ready)]) + ready)
        attacker.sendall(b"\x02" + struct.pack(">Q", 2**60) + os.urandom(100))
        assert serves_others(server)


def test_a_flood_leaves_the_others_served(server: PolicyServer):
    stop = threading.Event()

    def flood() -> None:
        with RawClient(server.endpoint) as attacker:
            seq = 0
            while not stop.is_set():
                seq += 1
                attacker.send_at_once(Ping(seq=seq))

    threads = [threading.Thread(target=flood) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for value in range(5):
            assert serves_others(server, value)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert serves_others(server)


def test_clients_that_flood_and_hang_up_end_nobody_else():
    """With ZeroMQ's heartbeats the whole process ended here, half a second later."""
    policy = EchoPolicy()
    with PolicyServer(policy, ANY_PORT) as server:
        for _ in range(3):
            with RawClient(server.endpoint) as attacker:
                attacker.open(session=9)
                for seq in range(2, 5000):
                    attacker.send_at_once(Ping(seq=seq))
        ends = time.monotonic() + 1.2
        while time.monotonic() < ends:
            assert serves_others(server)


def test_a_client_that_does_not_read_is_given_up_alone(server: PolicyServer):
    with RawClient(server.endpoint) as deaf:
        deaf.open(session=7)
        for seq in range(2, 6000):
            deaf.send_at_once(Ping(seq=seq))
        began = time.monotonic()
        assert serves_others(server)
        assert time.monotonic() - began < 10


def test_replayed_and_foreign_messages_get_their_errors(server: PolicyServer):
    hello, obs = Hello(1, 1, 1, 5), Obs(seq=2, epoch=1)
    with RawClient(server.endpoint) as client:
        client.send(hello)
        client.receive()
        for _ in range(3):
            client.send(obs, observation(1))
        answers = [client.receive()[0] for _ in range(3)]
        assert isinstance(answers[0], Chunk) or any(isinstance(a, Chunk) for a in answers)
        replayed = [a for a in answers if isinstance(a, Error)]
        assert [(a.seq, a.code) for a in replayed] == [(0, ErrorCode.REPLAYED)] * 2
        newer = [b"LDP2" + bytes(encode(hello)[0])[4:]]
        client.send_frames(newer)
        answer = client.receive()[0]
        assert isinstance(answer, Error)
        assert answer.code == ErrorCode.VERSION
        client.send_frames([b"XYZ1" + os.urandom(20)])
        answer = client.receive()[0]
        assert isinstance(answer, Error)
        assert answer.code == ErrorCode.MALFORMED
    assert serves_others(server)


@pytest.mark.slow
def test_a_hundred_clients_at_once_each_get_their_own_answers(server: PolicyServer):
    wrong: list[str] = []

    def robot(number: int) -> None:
        try:
            with PolicyClient(
                server.endpoint, timeout_s=60, shared_memory=number % 2 == 0
            ) as client:
                for step in range(50):
                    seen = observation(100.0 * number + step)
                    if not np.array_equal(client.infer(seen).actions, expected_actions(seen)):
                        wrong.append(f"{number} at {step}")
        except Exception as error:
            wrong.append(f"{number}: {error}")

    threads = [threading.Thread(target=robot, args=(number,)) for number in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, wrong[:5]
    counts = re.findall(r"\d+", server.status())
    assert int(counts[1]) == 100 * 50


def test_the_echo_policy_is_what_these_tests_think_it_is():
    assert [t.shape for t in SPEC.observations] == [(4, 6, 3), (3,)]
