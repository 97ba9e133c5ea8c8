"""A real server, driven by clients that are wrong or hostile, and by policies that fail."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.deploy.echo_policy import (
    SPEC,
    EchoPolicy,
    FailingPolicy,
    expected_actions,
    observation,
)
from tests.deploy.raw_client import ANY_PORT, RawClient, refusal

from loopdit.datasets.spec import Observation
from loopdit.deploy.messages import (
    Bye,
    Chunk,
    Error,
    ErrorCode,
    Hello,
    Obs,
    Reset,
    Welcome,
)
from loopdit.deploy.protocol import MAGIC, encode
from loopdit.deploy.serving.served_policy import Inference
from loopdit.deploy.serving.server import PolicyServer
from loopdit.errors import OutOfMemory


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
