"""The robot's side against real servers: in this process, in another one, and gone."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from tests.deploy.echo_policy import (
    HORIZON,
    SPEC,
    EchoPolicy,
    FailingPolicy,
    HeldPolicy,
    expected_actions,
    observation,
)
from tests.deploy.raw_client import ANY_PORT

from loopdit.datasets.spec import PolicySpec
from loopdit.deploy.client import PolicyClient
from loopdit.deploy.messages import ErrorCode, Hello, Message, Welcome, WireError
from loopdit.deploy.protocol import Frame, decode, encode
from loopdit.deploy.serving.server import PolicyServer
from loopdit.errors import ConfigError, LoopditError, ObservationError, ServerError, SpecMismatch

ROOT = Path(__file__).parents[2]


@pytest.fixture
def client(echo: PolicyServer) -> Iterator[PolicyClient]:
    with PolicyClient(echo.endpoint) as client:
        yield client


def code_of(error: pytest.ExceptionInfo[WireError]) -> str:
    return error.value.code


def test_the_client_knows_what_is_served(client: PolicyClient):
    assert client.spec == SPEC
    assert (client.model_id, client.horizon) == ("echo-0", HORIZON)
    assert (client.loops, client.default_loops, client.steps) == ((1, 2), 2, 10)


def test_a_chunk_is_what_the_policy_made_of_the_observation(client: PolicyClient):
    for value in range(5):
        reply = client.infer(observation(value, 9), loops=1, steps=3, seed=value)
        expected = expected_actions(observation(value, 9), seed=value, loops=1, steps=3)
        np.testing.assert_array_equal(reply.actions, expected)
        assert (reply.loops, reply.steps, reply.model_id) == (1, 3, "echo-0")
        assert list(reply.timing_us) == ["queue", "decode", "encode", "denoise", "send"]
        # The policy only claims its 18 us: the rest of the server's time is inside ours.
        assert sum(reply.timing_us.values()) - 18 <= reply.latency_s * 1e6
        reply.actions[:] = 0  # its own memory: a caller may clip it in place


def test_what_is_not_said_is_the_servers_choice(client: PolicyClient):
    reply = client.infer(observation(1))
    assert (reply.loops, reply.steps) == (2, 10)
    np.testing.assert_array_equal(reply.actions, expected_actions(observation(1)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"proprio": np.zeros(4, np.float32)}, "proprio has shape (4,)"),
        ({"proprio": [0.0, 0.0, 0.0]}, "dtype float64"),
        ({"images.top": np.zeros((4, 6, 3), np.uint8)}, "'images.top', which the policy"),
        ({"proprio": np.array([np.inf, 0, 0], np.float32)}, "not finite"),
    ],
)
def test_a_wrong_observation_is_refused_before_it_is_sent(
    client: PolicyClient, change: dict[str, np.ndarray], words: str
):
    with pytest.raises(ObservationError) as caught:
        client.infer({**observation(), **change})
    assert words in str(caught.value)
    assert client.ping()["refused"] == 0


@pytest.mark.parametrize("name", ["loops", "steps", "seed"])
def test_a_number_that_the_wire_cannot_carry_is_refused_by_its_name(
    client: PolicyClient, name: str
):
    with pytest.raises(ConfigError, match=f"{name}=-1 must be from 0 to"):
        client.infer(observation(), **{name: -1})  # pyright: ignore[reportArgumentType] - of the three
    reply = client.infer(observation(), loops=np.int64(1), seed=np.uint32(5))  # pyright: ignore[reportArgumentType] - numpy integers are what callers have
    np.testing.assert_array_equal(reply.actions, expected_actions(observation(), 5, loops=1))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"budget_s": float("nan")}, "budget_s=nan must be above 0"),
        ({"budget_s": float("inf")}, "budget_s=inf must be above 0"),
        ({"loops": 1.5}, "loops=1.5 is not a whole number"),
        ({"steps": "ten"}, "steps='ten' is not a whole number"),
        ({"instruction": None}, "instruction=None is no text"),
        ({"instruction": "lift " * 40_000}, "has 200000 characters"),
    ],
)
def test_a_setting_that_is_none_of_its_kind_is_refused(
    client: PolicyClient, settings: dict[str, Any], said: str
):
    with pytest.raises(ConfigError, match=re.escape(said)):
        client.infer(observation(), **settings)
    client.infer(observation())


def test_a_timeout_that_is_no_time_is_refused():
    with pytest.raises(ConfigError, match="timeout_s=inf"):
        PolicyClient("tcp://127.0.0.1:1", timeout_s=float("inf"))


def test_a_refusal_has_its_code_and_leaves_the_client_usable(client: PolicyClient):
    with pytest.raises(WireError, match="loops=9 is not served") as caught:
        client.infer(observation(), loops=9)
    assert code_of(caught) == ErrorCode.UNSUPPORTED
    assert not caught.value.retryable
    assert isinstance(caught.value, (ServerError, LoopditError))
    assert client.infer(observation()).loops == 2


def test_a_failed_inference_is_an_error_at_the_client():
    with PolicyServer(FailingPolicy(), ANY_PORT) as server, PolicyClient(server.endpoint) as client:
        with pytest.raises(WireError, match="ValueError: x is negative") as caught:
            client.infer(observation(-1))
        assert code_of(caught) == ErrorCode.INTERNAL
        np.testing.assert_array_equal(
            client.infer(observation(1)).actions, expected_actions(observation(1))
        )


def test_a_budget_that_is_gone_is_late():
    policy = HeldPolicy()
    with PolicyServer(policy, ANY_PORT) as server, PolicyClient(server.endpoint) as other:
        holding = threading.Thread(target=other.infer, args=(observation(),))
        holding.start()
        assert policy.began.acquire(timeout=10)
        with PolicyClient(server.endpoint) as client:
            with pytest.raises(WireError, match=r"its budget of 10\.0 ms") as caught:
                client.infer(observation(), budget_s=0.01)
            assert code_of(caught) == ErrorCode.LATE
            assert caught.value.retryable
        policy.let_go.release()
        holding.join()


def test_a_reset_starts_a_new_seed_and_the_same_reset_repeats_it(client: PolicyClient):
    def episode(seed: int) -> list[np.ndarray]:
        client.reset(seed)
        return [client.infer(observation(), seed=step).actions for step in range(3)]

    np.testing.assert_array_equal(episode(1), episode(1))
    assert not np.array_equal(episode(1), episode(2))


def test_ping_tells_a_busy_policy_from_a_dead_server():
    policy = HeldPolicy()
    with PolicyServer(policy, ANY_PORT) as server, PolicyClient(server.endpoint) as other:
        holding = threading.Thread(target=other.infer, args=(observation(),))
        holding.start()
        assert policy.began.acquire(timeout=10)
        with PolicyClient(server.endpoint) as client:
            first, second = client.ping(), client.ping()
        assert isinstance(first["busy_us"], int)
        assert 0 < first["busy_us"] < int(second["busy_us"])
        assert (second["sessions"], second["model_id"]) == (2, "echo-0")
        policy.let_go.release()
        holding.join()


def test_no_server_is_one_clear_error_in_time():
    began = time.monotonic()
    with pytest.raises(WireError) as caught:
        PolicyClient("tcp://127.0.0.1:1", timeout_s=0.3)
    assert time.monotonic() - began < 5
    assert code_of(caught) == ErrorCode.TIMEOUT
    assert str(caught.value) == (
        "no answer from tcp://127.0.0.1:1 within 0.3 s: is policy-serve running there?"
    )


def test_an_address_of_another_form_is_one_clear_error():
    with pytest.raises(ServerError, match=r"'127\.0\.0\.1' is not an address .* like tcp://"):
        PolicyClient("127.0.0.1", timeout_s=0.3)


def test_a_host_that_nobody_knows_is_one_clear_error_at_once():
    began = time.monotonic()
    with pytest.raises(WireError, match=r"no host is known as 'no-such-robot\.invalid'") as caught:
        PolicyClient("tcp://no-such-robot.invalid:5555", timeout_s=60)
    assert code_of(caught) == ErrorCode.TIMEOUT
    assert time.monotonic() - began < 30


def test_after_a_timeout_the_client_works_again_and_the_late_answer_is_not_mistaken():
    policy = HeldPolicy()
    with (
        PolicyServer(policy, ANY_PORT) as server,
        PolicyClient(server.endpoint, timeout_s=1.0) as client,
    ):
        with pytest.raises(WireError, match="has policy-serve died, or does its policy") as caught:
            client.infer(observation(1))
        assert code_of(caught) == ErrorCode.TIMEOUT
        policy.let_go.release(2)
        reply = client.infer(observation(2))
        np.testing.assert_array_equal(reply.actions, expected_actions(observation(2)))


def test_a_server_that_stops_says_so_and_its_successor_is_greeted():
    with PolicyServer(EchoPolicy(), ANY_PORT) as first:
        client = PolicyClient(first.endpoint, timeout_s=10)
        client.reset(seed=3)
        before = client.infer(observation(), seed=1).actions
    with PolicyServer(EchoPolicy(), client.endpoint), client:
        # The session, the epoch and the episode's seed are restored without a word.
        np.testing.assert_array_equal(client.infer(observation(), seed=1).actions, before)


class WiderPolicy(EchoPolicy):
    spec = replace(SPEC, action_frame="camera")
    model_id = "wider-0"


def test_a_successor_with_another_spec_is_refused():
    with PolicyServer(EchoPolicy(), ANY_PORT) as first:
        client = PolicyClient(first.endpoint, timeout_s=10)
    with PolicyServer(WiderPolicy(), client.endpoint), client:
        with pytest.raises(WireError, match=f"was made for spec {SPEC.digest()}") as caught:
            client.infer(observation())
        assert code_of(caught) == ErrorCode.SPEC_MISMATCH


def test_a_client_made_for_another_spec_is_refused_at_connect(echo: PolicyServer):
    with pytest.raises(SpecMismatch) as caught:
        PolicyClient(echo.endpoint, spec=replace(SPEC, control_period_s=0.02))
    said = str(caught.value)
    assert f"control_period_s is 0.02, there {SPEC.control_period_s}" in said
    assert echo.endpoint in said
    assert "Serve the bundle the robot was set up for" in said
    with PolicyClient(echo.endpoint, spec=SPEC):
        pass


@contextmanager
def server_that_answers(frames: list[Frame]) -> Generator[str]:
    """Somebody else's server: answers the first message with `frames`."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.setsockopt(zmq.LINGER, 0)
        port = router.bind_to_random_port("tcp://127.0.0.1")

        def answer() -> None:
            peer = router.recv_multipart()[0]
            router.send_multipart([peer, *frames])

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"tcp://127.0.0.1:{port}"
        thread.join()


def test_a_greeting_that_got_lost_is_said_again():
    # As by a connection that breaks just then: ZeroMQ loses what was given to it, in silence.
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.setsockopt(zmq.LINGER, 0)
        port = router.bind_to_random_port("tcp://127.0.0.1")
        heard: list[Message] = []

        def answer_the_second() -> None:
            heard.append(decode(router.recv_multipart()[1:], 0)[0])
            peer, *frames = router.recv_multipart()
            heard.append(decode(frames, 0)[0])
            spec = SPEC.to_dict()
            answer = Welcome(heard[-1].seq, 1, 1, 1, "m", 5, (1,), 1, 10, SPEC.digest(), spec)
            router.send_multipart([peer, *encode(answer)])

        thread = threading.Thread(target=answer_the_second)
        thread.start()
        began = time.monotonic()
        with PolicyClient(f"tcp://127.0.0.1:{port}", timeout_s=30) as client:
            assert client.model_id == "m"
        assert time.monotonic() - began < 15
        thread.join()
    assert [type(message) for message in heard] == [Hello, Hello]
    assert heard[0].seq < heard[1].seq


def welcome(protocol: int = 1, spec_version: int = 1) -> list[Frame]:
    spec = {**SPEC.to_dict(), "version": spec_version}
    return encode(Welcome(1, protocol, 1, 1, "m", 5, (1,), 1, 10, "", spec))


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ([b"LDP2\x90"], "message of protocol b'LDP2'; this loopdit speaks b'LDP1'"),
        ([b"HTTP/1.1 400 Bad Request"], "header begins b'HTTP'"),
        (welcome(protocol=2), "chose protocol 2; this client speaks 1"),
        (welcome(spec_version=9), "spec version 9; this loopdit reads version 1"),
    ],
)
def test_a_server_of_another_version_is_a_clear_error_at_connect(frames: list[Frame], words: str):
    with server_that_answers(frames) as endpoint, pytest.raises(LoopditError) as caught:
        PolicyClient(endpoint)
    assert words in str(caught.value)


SERVE_ECHO = """
import sys
from loopdit.deploy.serving.server import PolicyServer
from tests.deploy.echo_policy import EchoPolicy
with PolicyServer(EchoPolicy(), sys.argv[1]) as server:
    print(server.endpoint, flush=True)
    sys.stdin.read()
"""


@contextmanager
def echo_process(endpoint: str) -> Generator[tuple["subprocess.Popen[str]", str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE_ECHO, endpoint],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    with process:
        try:
            assert process.stdout
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def test_a_killed_server_is_a_timeout_and_its_successor_serves_the_same_client():
    with echo_process(ANY_PORT) as (first, endpoint):
        client = PolicyClient(endpoint, timeout_s=2)
        client.infer(observation(1))
        first.send_signal(signal.SIGKILL)
        first.wait()
        with pytest.raises(
            WireError, match=re.escape(f"no answer from {endpoint} within 2 s")
        ) as caught:
            client.infer(observation(2))
        assert code_of(caught) == ErrorCode.TIMEOUT
    with PolicyServer(EchoPolicy(), endpoint), client:
        reply = client.infer(observation(3))
        np.testing.assert_array_equal(reply.actions, expected_actions(observation(3)))


def test_a_reset_that_timed_out_leaves_client_and_server_in_one_epoch():
    with echo_process(ANY_PORT) as (server, endpoint), PolicyClient(endpoint, 1.5) as client:
        server.send_signal(signal.SIGSTOP)
        os.waitpid(server.pid, os.WUNTRACED)  # until it has stopped
        with pytest.raises(WireError) as caught:
            client.reset(seed=4)
        assert caught.value.code == ErrorCode.TIMEOUT
        server.send_signal(signal.SIGCONT)
        actions = client.infer(observation()).actions
    # Its seed was the one asked for: the same as in a session that never stumbled.
    with PolicyServer(EchoPolicy(), ANY_PORT) as calm, PolicyClient(calm.endpoint) as client:
        client.reset(seed=4)
        np.testing.assert_array_equal(client.infer(observation()).actions, actions)


def test_a_closed_client_says_so(client: PolicyClient):
    client.close()
    client.close()
    with pytest.raises(RuntimeError, match="this PolicyClient is closed"):
        client.infer(observation())


def test_the_robot_side_imports_nothing_heavy():
    heavy = {"torch", "hydra", "mujoco", "zarr", "onnxruntime", "rich", "omegaconf"}
    script = (
        "import loopdit.deploy.client, loopdit.deploy.robot.chunk_player, sys;"
        f"print(sorted({heavy!r} & set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


def test_the_spec_travels_whole(client: PolicyClient):
    assert PolicySpec.from_dict(SPEC.to_dict()) == client.spec
    assert SPEC.differences(client.spec) == []
