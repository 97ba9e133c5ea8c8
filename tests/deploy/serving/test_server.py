"""A real server on a free loopback port, driven by clients that are right, wrong and hostile."""

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.deploy.echo_policy import (
    HORIZON,
    SPEC,
    EchoPolicy,
    FailingPolicy,
    HeldPolicy,
    expected_actions,
    observation,
)
from tests.deploy.raw_client import Answer, RawClient

from loopdit.datasets.spec import Observation, PolicySpec
from loopdit.deploy.messages import (
    Bye,
    Chunk,
    Error,
    ErrorCode,
    Hello,
    Obs,
    Ping,
    Pong,
    Reset,
    ResetAck,
    Welcome,
)
from loopdit.deploy.protocol import MAGIC, encode
from loopdit.deploy.security.endpoints import check_endpoint
from loopdit.deploy.serving.served_policy import Inference
from loopdit.deploy.serving.server import PolicyServer
from loopdit.errors import ConfigError, OutOfMemory, ServerError

ANY_PORT = "tcp://127.0.0.1:0"


@pytest.fixture
def echo() -> Iterator[PolicyServer]:
    with PolicyServer(EchoPolicy(), ANY_PORT) as server:
        yield server


@pytest.fixture
def client(echo: PolicyServer) -> Iterator[RawClient]:
    with RawClient(echo.endpoint) as client:
        yield client


def refusal(answer: Answer) -> tuple[int, str]:
    message = answer[0]
    assert isinstance(message, Error), message
    return message.seq, message.code


def test_welcome_says_what_is_served(client: RawClient):
    welcome = client.open(session=77)
    assert (welcome.seq, welcome.session, welcome.epoch, welcome.protocol) == (1, 77, 1, 1)
    assert PolicySpec.from_dict(welcome.spec) == SPEC
    assert welcome.spec_digest == SPEC.digest()
    assert (welcome.model_id, welcome.horizon, welcome.loops) == ("echo-0", HORIZON, (1, 2))
    assert (welcome.default_loops, welcome.default_steps) == (2, 10)


def test_a_chunk_answers_what_was_asked_and_echoes_its_stamps(client: RawClient):
    client.open()
    asked = Obs(seq=5, epoch=1, step=42, observed_ns=123, loops=1, steps=3, seed=8)
    client.send(asked, observation(0.25, 10))
    chunk, tensors = client.receive()
    assert isinstance(chunk, Chunk)
    assert (chunk.seq, chunk.epoch, chunk.step, chunk.observed_ns) == (5, 1, 42, 123)
    assert (chunk.loops, chunk.steps, chunk.model_id) == (1, 3, "echo-0")
    np.testing.assert_array_equal(
        tensors["action"], expected_actions(observation(0.25, 10), seed=8, loops=1, steps=3)
    )
    timing = chunk.timing_us
    assert (timing.encode, timing.denoise) == (7, 11)
    assert 0 < timing.queue + timing.decode + timing.send < 10_000_000


def test_health_hello_and_reset_are_answered_while_an_inference_runs():
    policy = HeldPolicy()
    with PolicyServer(policy, ANY_PORT) as server, RawClient(server.endpoint) as busy:
        busy.open()
        busy.observe(2, observation())
        assert policy.began.acquire(timeout=10)
        with RawClient(server.endpoint) as other:
            other.send(Ping(seq=1))
            pong, _ = other.receive()
            assert isinstance(pong, Pong)
            assert pong.busy_us > 0
            assert other.open(session=2).epoch == 1
            other.send(Reset(seq=3, epoch=2))
            assert other.receive()[0] == ResetAck(seq=3, epoch=2, seed=0)
        # The inference still runs: nothing above waited for it.
        assert not busy.has_answer(within_s=0.0)
        policy.let_go.release()
        assert isinstance(busy.receive()[0], Chunk)
        busy.send(Ping(seq=3))
        pong, _ = busy.receive()
        assert isinstance(pong, Pong)
        assert (pong.busy_us, pong.answered) == (0, 1)


def test_the_newest_observation_wins_and_the_replaced_one_is_told():
    policy = HeldPolicy()
    with PolicyServer(policy, ANY_PORT) as server, RawClient(server.endpoint) as client:
        client.open()
        client.observe(2, observation(1))
        assert policy.began.acquire(timeout=10)
        client.observe(3, observation(2))
        client.observe(4, observation(3))
        assert refusal(client.receive()) == (3, ErrorCode.SUPERSEDED)
        policy.let_go.release(2)
        answers = [client.receive() for _ in range(2)]
        assert [chunk.seq for chunk, _ in answers] == [2, 4]
        np.testing.assert_array_equal(answers[1][1]["action"], expected_actions(observation(3)))
        assert not client.has_answer(within_s=0.1)


def test_a_reset_during_inference_makes_its_chunk_stale():
    policy = HeldPolicy()
    with PolicyServer(policy, ANY_PORT) as server, RawClient(server.endpoint) as client:
        client.open()
        client.observe(2, observation())
        assert policy.began.acquire(timeout=10)
        client.observe(3, observation())
        client.send(Reset(seq=4, epoch=2))
        assert refusal(client.receive()) == (3, ErrorCode.STALE_EPOCH)
        assert isinstance(client.receive()[0], ResetAck)
        policy.let_go.release()
        assert refusal(client.receive()) == (2, ErrorCode.STALE_EPOCH)
        client.observe(5, observation(), epoch=1)
        assert refusal(client.receive()) == (5, ErrorCode.STALE_EPOCH)
        policy.let_go.release()
        client.observe(6, observation(), epoch=2)
        assert isinstance(client.receive()[0], Chunk)


def test_a_request_whose_budget_runs_out_while_it_waits_is_late_at_once():
    policy = HeldPolicy()
    with PolicyServer(policy, ANY_PORT) as server, RawClient(server.endpoint) as client:
        with RawClient(server.endpoint) as other:
            other.open(session=2)
            other.observe(2, observation())
            assert policy.began.acquire(timeout=10)
            client.open()
            client.send(Obs(seq=2, epoch=1, budget_us=30_000), observation())
            asked = time.monotonic()
            assert refusal(client.receive()) == (2, ErrorCode.LATE)
            assert time.monotonic() - asked >= 0.02
            policy.let_go.release()
            assert isinstance(other.receive()[0], Chunk)
        # It never reached the policy, and a budget that suffices is served.
        assert not policy.began.acquire(blocking=False)
        policy.let_go.release()
        client.send(Obs(seq=3, epoch=1, budget_us=60_000_000), observation())
        assert isinstance(client.receive()[0], Chunk)


def wrong(**changes: np.ndarray | None) -> dict[str, np.ndarray]:
    changed = {**observation(), **{k.replace("_", "."): v for k, v in changes.items()}}
    return {name: value for name, value in changed.items() if value is not None}


@pytest.mark.parametrize(
    ("seen", "code", "words"),
    [
        (wrong(proprio=np.zeros(4, np.float32)), ErrorCode.SHAPE, "proprio has shape (4,)"),
        (wrong(images_front=np.zeros((6, 4, 3), np.uint8)), ErrorCode.SHAPE, "takes (4, 6, 3)"),
        (wrong(proprio=np.zeros(3, np.float64)), ErrorCode.DTYPE, "dtype float64"),
        (wrong(images_front=np.zeros((4, 6, 3))), ErrorCode.DTYPE, "images.front has shape"),
        (
            wrong(proprio=np.array([0, np.nan, 0], np.float32)),
            ErrorCode.NONFINITE,
            "proprio is not finite at index [1]",
        ),
        (wrong(proprio=None), ErrorCode.UNKNOWN, "lacks 'proprio'"),
        (wrong(images_top=np.zeros((4, 6, 3), np.uint8)), ErrorCode.UNKNOWN, "'images.top'"),
        ({}, ErrorCode.UNKNOWN, "lacks 'images.front'"),
    ],
)
def test_an_observation_unlike_the_spec_is_refused_with_the_field_named(
    client: RawClient, seen: dict[str, np.ndarray], code: str, words: str
):
    client.open()
    client.observe(2, seen)
    answer = client.receive()
    assert refusal(answer) == (2, code)
    assert isinstance(answer[0], Error)
    assert words in answer[0].message
    client.observe(3, observation())
    assert isinstance(client.receive()[0], Chunk)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (Obs(seq=2, epoch=1, loops=3), "loops=3 is not served. Ask for one of: 1, 2."),
        (Obs(seq=2, epoch=1, steps=1001), "steps=1001 is not served. Ask for 1 to 1000."),
    ],
)
def test_compute_that_is_not_offered_is_refused(client: RawClient, asked: Obs, words: str):
    client.open()
    client.send(asked, observation())
    answer = client.receive()
    assert refusal(answer) == (2, ErrorCode.UNSUPPORTED)
    assert isinstance(answer[0], Error)
    assert answer[0].message == words


def test_versions_without_overlap_and_other_specs_are_refused_at_hello(client: RawClient):
    client.send(Hello(1, 2, 3, 9))
    answer = client.receive()
    assert refusal(answer) == (1, ErrorCode.VERSION)
    client.send(Hello(2, 1, 2, 9, spec_digest="feedfeedfeedfeed"))
    answer = client.receive()
    assert refusal(answer) == (2, ErrorCode.SPEC_MISMATCH)
    assert isinstance(answer[0], Error)
    assert "feedfeedfeedfeed" in answer[0].message
    assert SPEC.digest() in answer[0].message
    client.send(Hello(3, 1, 2, 9, spec_digest=SPEC.digest()))
    assert isinstance(client.receive()[0], Welcome)


def test_requests_without_a_session_or_with_a_used_seq_are_refused(client: RawClient):
    client.observe(1, observation())
    assert refusal(client.receive()) == (1, ErrorCode.NO_SESSION)
    client.send(Reset(seq=2, epoch=2))
    assert refusal(client.receive()) == (2, ErrorCode.NO_SESSION)
    client.open()
    client.observe(3, observation())
    assert isinstance(client.receive()[0], Chunk)
    client.observe(3, observation())
    assert refusal(client.receive()) == (0, ErrorCode.REPLAYED)
    client.send(Bye(seq=4))
    client.observe(5, observation())
    assert refusal(client.receive()) == (5, ErrorCode.NO_SESSION)


def test_a_kind_that_is_not_for_servers_is_refused(client: RawClient):
    client.send(Welcome(3, 1, 1, 1, "m", 1, (1,), 1, 1, "", {}))
    assert refusal(client.receive()) == (3, ErrorCode.UNKNOWN_KIND)


def test_a_policy_that_raises_answers_internal_and_the_server_lives_on(
    caplog: pytest.LogCaptureFixture,
):
    with PolicyServer(FailingPolicy(), ANY_PORT) as server, RawClient(server.endpoint) as client:
        client.open()
        client.observe(2, observation(-1))
        answer = client.receive()
        assert refusal(answer) == (2, ErrorCode.INTERNAL)
        assert isinstance(answer[0], Error)
        assert answer[0].message == "the policy raised ValueError: x is negative"
        client.observe(3, observation(101))
        answer = client.receive()
        assert refusal(answer) == (3, ErrorCode.INTERNAL)
        assert isinstance(answer[0], Error)
        assert "not finite" in answer[0].message
        client.observe(4, observation(1))
        assert isinstance(client.receive()[0], Chunk)
    # The traceback is for the server's log alone.
    assert "Traceback" in caplog.text
    assert "this line must not travel" in caplog.text


def test_two_clients_interleaved_get_their_own_answers(echo: PolicyServer):
    with RawClient(echo.endpoint) as one, RawClient(echo.endpoint) as two:
        one.open(session=1)
        two.open(session=2)
        for seq in range(2, 40):
            one.observe(seq, observation(seq))
            two.observe(seq, observation(-seq))
            for client, value in ((two, -seq), (one, seq)):
                chunk, tensors = client.receive()
                assert chunk.seq == seq
                expected = expected_actions(observation(value))
                np.testing.assert_array_equal(tensors["action"], expected)


def test_a_session_is_resumed_by_its_id_in_a_new_epoch(echo: PolicyServer):
    with RawClient(echo.endpoint) as before:
        assert before.open(session=5).epoch == 1
    with RawClient(echo.endpoint) as after:
        assert after.open(session=5).epoch == 2
        after.observe(2, observation(), epoch=1)
        assert refusal(after.receive()) == (2, ErrorCode.STALE_EPOCH)
        after.observe(3, observation(), epoch=2)
        assert isinstance(after.receive()[0], Chunk)


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


hostile = st.one_of(
    st.lists(st.binary(max_size=40), min_size=1, max_size=4),
    st.binary(max_size=60).map(lambda body: [MAGIC + body]),
    st.tuples(st.integers(0, 60), st.binary(max_size=6)).map(
        lambda cut: [
            *(bytes(frame) for frame in encode(Obs(seq=1, epoch=1), observation())[:1]),
            bytes(cut[0]),
            cut[1],
        ]
    ),
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(hostile, min_size=1, max_size=20))
def test_arbitrary_frames_leave_the_server_answering_a_good_client(
    echo: PolicyServer, attack: list[list[bytes]]
):
    with RawClient(echo.endpoint) as attacker, RawClient(echo.endpoint) as good:
        for frames in attack:
            attacker.send_frames(frames)
        for _ in attack:
            assert isinstance(attacker.receive()[0], Error)
        good.observe(2, observation(3), epoch=good.open().epoch)
        chunk, tensors = good.receive()
        assert isinstance(chunk, Chunk)
        np.testing.assert_array_equal(tensors["action"], expected_actions(observation(3)))
    assert echo.running


def test_a_message_larger_than_any_observation_costs_its_sender_the_connection(
    echo: PolicyServer, client: RawClient
):
    with RawClient(echo.endpoint) as attacker:
        attacker.send_frames([MAGIC, bytes(4_000_000)])
        assert not attacker.has_answer(within_s=0.2)
    client.open()
    client.observe(2, observation())
    assert isinstance(client.receive()[0], Chunk)


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


def test_the_servers_defaults_are_used_for_a_client_that_does_not_say():
    with (
        PolicyServer(EchoPolicy(), ANY_PORT, default_loops=1, default_steps=4) as server,
        RawClient(server.endpoint) as client,
    ):
        client.open()
        client.observe(2, observation())
        chunk, tensors = client.receive()
        assert isinstance(chunk, Chunk)
        assert (chunk.loops, chunk.steps) == (1, 4)
        expected = expected_actions(observation(), loops=1, steps=4)
        np.testing.assert_array_equal(tensors["action"], expected)


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


def test_a_client_that_never_reads_costs_the_others_nothing():
    with PolicyServer(EchoPolicy(), ANY_PORT) as server:
        with RawClient(server.endpoint) as deaf, RawClient(server.endpoint) as good:
            deaf.open(session=1)
            good.open(session=2)
            for seq in range(2, 302):
                for again in range(10):
                    deaf.observe(10 * seq + again, observation())
                good.observe(seq, observation(seq))
                chunk, tensors = good.receive()
                assert isinstance(chunk, Chunk)
                assert chunk.seq == seq
                np.testing.assert_array_equal(tensors["action"], expected_actions(observation(seq)))
        assert server.running


def test_a_policy_that_needs_more_memory_than_there_is_says_so():
    class Large(EchoPolicy):
        def infer(
            self,
            observation: Observation,
            *,
            seed: int,
            loops: int,
            steps: int,
            instruction: str = "",
        ) -> Inference:
            if observation["proprio"][0] > 0:
                raise OutOfMemory("the GPU has too little free memory for this policy.")
            raise MemoryError

    with PolicyServer(Large(), ANY_PORT) as server, RawClient(server.endpoint) as client:
        client.open()
        for seq, x in ((2, 1), (3, 0)):
            client.observe(seq, observation(x))
            answer = client.receive()[0]
            assert isinstance(answer, Error)
            assert (answer.seq, answer.code, answer.retryable) == (seq, ErrorCode.OVERLOAD, True)
            assert "memory" in answer.message
