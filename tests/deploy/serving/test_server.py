"""A real server on a free loopback port: what is asked is answered, by whom and in which order."""

import time

import numpy as np
from tests.deploy.echo_policy import (
    HORIZON,
    SPEC,
    EchoPolicy,
    HeldPolicy,
    expected_actions,
    observation,
)
from tests.deploy.raw_client import ANY_PORT, RawClient, refusal

from loopdit.datasets.spec import PolicySpec
from loopdit.deploy.messages import (
    Chunk,
    ErrorCode,
    Obs,
    Ping,
    Pong,
    Reset,
    ResetAck,
)
from loopdit.deploy.serving.server import PolicyServer


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
