"""Where a server listens, and what becomes of what was asked when it stops."""

import threading

import numpy as np
import pytest
from tests.deploy.echo_policy import (
    EchoPolicy,
    HeldPolicy,
    expected_actions,
    observation,
)
from tests.deploy.raw_client import ANY_PORT, Answer, RawClient, refusal

from loopdit.deploy.messages import (
    Bye,
    Chunk,
    Error,
    ErrorCode,
    Ping,
    Pong,
)
from loopdit.deploy.security.endpoints import check_endpoint
from loopdit.deploy.serving.server import PolicyServer
from loopdit.errors import ConfigError, ServerError


def test_a_port_in_use_is_one_clear_error(echo: PolicyServer):
    port = int(echo.endpoint.rpartition(":")[2])
    with pytest.raises(ServerError, match=f"port {port} is in use .*127.0.0.1:{port + 1}"):
        PolicyServer(EchoPolicy(), echo.endpoint)


def test_a_port_is_free_again_when_its_server_has_stopped():
    with PolicyServer(EchoPolicy(), ANY_PORT) as first:
        endpoint = first.endpoint
    assert not first.running
    with PolicyServer(EchoPolicy(), endpoint) as second, RawClient(second.endpoint) as client:
        client.open()


@pytest.mark.parametrize("host", ["0.0.0.0", "*", "192.168.1.5", "robot.example", "[::]"])
def test_an_address_that_others_can_reach_is_refused(host: str):
    with pytest.raises(ConfigError, match="is not this machine's loopback address"):
        PolicyServer(EchoPolicy(), f"tcp://{host}:0")


@pytest.mark.parametrize(
    "endpoint", ["5555", "tcp://127.0.0.1", "tcp://127.0.0.1:70000", "udp://x:1"]
)
def test_an_endpoint_of_another_form_is_refused(endpoint: str):
    with pytest.raises(ConfigError, match="not of the form tcp://HOST:PORT"):
        PolicyServer(EchoPolicy(), endpoint)


def test_every_loopback_address_is_accepted():
    assert check_endpoint("tcp://localhost:1") == "tcp://127.0.0.1:1"
    assert check_endpoint("tcp://127.0.0.2:1") == "tcp://127.0.0.2:1"
    assert check_endpoint("tcp://[::1]:1") == "tcp://[::1]:1"


def test_defaults_that_the_policy_does_not_offer_are_refused():
    with pytest.raises(ConfigError, match=r"loops=7 is not served\. Ask for one of: 1, 2\."):
        PolicyServer(EchoPolicy(), ANY_PORT, default_loops=7)


def test_what_waits_and_what_is_computed_is_refused_when_the_server_stops():
    policy = HeldPolicy()
    server = PolicyServer(policy, ANY_PORT)
    server.start()
    with RawClient(server.endpoint) as client:
        client.open()
        client.observe(2, observation())
        assert policy.began.acquire(timeout=10)
        client.observe(3, observation())
        client.send(Ping(seq=4))
        assert isinstance(client.receive()[0], Pong)  # so both observations have arrived
        policy.let_go.release()
        policy.let_go.release()
        server.stop()
        answers = [client.receive()[0] for _ in range(3)]
    assert all(isinstance(a, (Error, Chunk, Bye)) for a in answers)
    assert sorted(a.seq for a in answers) == [0, 2, 3]
    assert isinstance(answers[-1], Bye)


def test_what_is_in_compute_is_finished_when_the_server_stops():
    policy = HeldPolicy()
    server = PolicyServer(policy, ANY_PORT)
    server.start()
    with RawClient(server.endpoint) as client:
        client.open()
        client.observe(2, observation())
        assert policy.began.acquire(timeout=10)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        answers: dict[int, Answer] = {}
        sent = 3
        while not any(isinstance(a, Error) and a.code == "CLOSING" for a, _ in answers.values()):
            client.observe(sent, observation())
            sent += 1
            while client.has_answer(within_s=0.01):
                message, tensors = client.receive()
                answers[message.seq] = message, tensors
        client.send(Ping(seq=sent))  # answered until the end
        while sent not in answers:
            message, tensors = client.receive()
            assert message.seq not in answers
            answers[message.seq] = message, tensors
        policy.let_go.release()
        while 0 not in answers:  # the seq of its BYE
            message, tensors = client.receive()
            assert message.seq not in answers
            answers[message.seq] = message, tensors
        stopping.join(timeout=10)
    assert not server.running
    chunk, tensors = answers.pop(2)
    assert isinstance(chunk, Chunk)
    np.testing.assert_array_equal(tensors["action"], expected_actions(observation()))
    assert isinstance(answers.pop(0)[0], Bye)
    assert isinstance(answers.pop(sent)[0], Pong)
    assert sorted(answers) == list(range(3, sent))
    codes = {refusal(answer)[1] for answer in answers.values()}
    assert codes <= {ErrorCode.SUPERSEDED, ErrorCode.CLOSING}
