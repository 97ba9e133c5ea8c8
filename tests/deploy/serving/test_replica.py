"""Policies in processes of their own, which may end at any moment."""

import os
import signal
import time
from collections.abc import Iterator

import numpy as np
import pytest
from tests.deploy.echo_policy import SPEC, expected_actions, observation
from tests.deploy.planned_policy import mortal_policy
from tests.deploy.raw_client import ANY_PORT, RawClient

from loopdit.deploy.messages import Chunk, Error, ErrorCode
from loopdit.deploy.serving.replica import Replica, start_replicas
from loopdit.deploy.serving.replica_side import looks
from loopdit.deploy.serving.served_policy import (
    Asked,
    Inference,
    PlannedPolicy,
    ReplicaLost,
    Revivable,
)
from loopdit.deploy.serving.server import PolicyServer
from loopdit.errors import BundleError, ServerError


def refuses_to_start() -> PlannedPolicy:
    raise BundleError("there is no such bundle.")


@pytest.fixture(scope="module")
def replica() -> Iterator[Replica]:
    (made,) = start_replicas(1, mortal_policy)
    yield made
    made.close()


def test_it_is_the_policy_that_its_process_made(replica: Replica):
    policy: PlannedPolicy = replica
    assert isinstance(replica, Revivable)
    assert (policy.model_id, policy.spec, policy.loops) == ("mortal-1", SPEC, (1, 2))
    assert replica.process_id not in (None, os.getpid())
    made = policy.infer(observation(2), seed=5, loops=1, steps=3)
    np.testing.assert_array_equal(made.actions, expected_actions(observation(2), 5, 1, 3))


def test_what_it_raises_is_an_outcome_and_it_lives_on(replica: Replica):
    asked = [Asked(observation(-1), 0)]
    (outcome,) = replica.infer_batch(asked, loops=1, steps=1, may_stop=False)
    assert isinstance(outcome, ServerError)
    assert str(outcome) == "the policy raised ValueError: x is negative"
    (outcome,) = replica.infer_batch([Asked(observation(1), 0)], loops=1, steps=1, may_stop=False)
    assert isinstance(outcome, Inference)


def test_a_process_that_ends_is_noticed_at_once_and_started_again(replica: Replica):
    before = replica.process_id
    began = time.monotonic()
    with pytest.raises(ReplicaLost, match="ended by itself \\(status 3\\)"):
        replica.infer_batch([Asked(observation(101), 0)], loops=1, steps=1, may_stop=False)
    assert time.monotonic() - began < 5
    assert not replica.alive
    replica.revive()
    assert replica.alive
    assert replica.process_id != before
    assert replica.infer(observation(1), seed=0, loops=1, steps=1).loops == 1


def test_one_that_cannot_be_made_says_why():
    with pytest.raises(BundleError, match="there is no such bundle"):
        start_replicas(2, refuses_to_start)


@pytest.mark.parametrize("killed", [0, 1])  # one of them computes, the other is idle
def test_a_replica_that_is_killed_costs_nobody_an_answer(killed: int):
    replicas = start_replicas(2, mortal_policy)
    with PolicyServer(replicas, ANY_PORT) as server, RawClient(server.endpoint) as client:
        client.open()
        client.observe(2, observation(11))  # a tenth of a second
        assert not client.has_answer(within_s=0.03)
        os.kill(replicas[killed].process_id or 0, signal.SIGKILL)
        chunk, tensors = client.receive()
        assert isinstance(chunk, Chunk)
        np.testing.assert_array_equal(tensors["action"], expected_actions(observation(11)))
        seq, deadline = 3, time.monotonic() + 30
        while not all(replica.alive for replica in replicas):
            client.observe(seq, observation(1))  # served meanwhile
            assert isinstance(client.receive()[0], Chunk)
            seq += 1
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert not any(replica.alive for replica in replicas)


def test_a_replica_that_answers_no_more_is_given_up_and_its_request_is_computed_by_another(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("loopdit.deploy.serving.replica._LEAST_PATIENCE_S", 0.5)
    replicas = start_replicas(2, mortal_policy)
    with PolicyServer(replicas, ANY_PORT) as server, RawClient(server.endpoint) as client:
        client.open()
        client.observe(2, observation(1))
        assert isinstance(client.receive()[0], Chunk)
        asked = replicas[-1]  # the one that was free last is the next
        before = asked.process_id
        os.kill(before or 0, signal.SIGSTOP)
        client.observe(3, observation(1))
        assert not client.has_answer(within_s=0.4)
        chunk, tensors = client.receive(timeout_s=10)
        assert isinstance(chunk, Chunk)
        np.testing.assert_array_equal(tensors["action"], expected_actions(observation(1)))
        deadline = time.monotonic() + 30
        while not (asked.process_id != before and asked.alive):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_what_was_never_asked_for_may_take_its_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("loopdit.deploy.serving.replica._LEAST_PATIENCE_S", 0.01)
    monkeypatch.setattr("loopdit.deploy.serving.replica._PATIENCE", 0.01)
    (made,) = start_replicas(1, mortal_policy)
    try:  # of steps=2 nothing is known; of steps=1 that 0.1 s is not much
        assert made.infer(observation(11), seed=0, loops=1, steps=2).loops == 1
        assert made.infer(observation(11), seed=0, loops=1, steps=1).loops == 1  # 0.1 s
        with pytest.raises(ReplicaLost, match=r"did not answer within 0\.0 s"):
            made.infer(observation(11), seed=0, loops=1, steps=1)
        made.revive()
        assert made.infer(observation(11), seed=0, loops=1, steps=1).loops == 1
    finally:
        made.close()


def test_a_first_chunk_that_took_long_makes_nobody_patient(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("loopdit.deploy.serving.replica._LEAST_PATIENCE_S", 0.01)
    monkeypatch.setattr("loopdit.deploy.serving.replica._PATIENCE", 10.0)
    (made,) = start_replicas(1, mortal_policy)
    try:
        for x in (11, *[1] * 10):  # 0.1 s, then at once
            made.infer(observation(x), seed=0, loops=1, steps=1)
        with pytest.raises(ReplicaLost, match="did not answer within"):
            made.infer(observation(11), seed=0, loops=1, steps=1)
    finally:
        made.close()


def test_silence_is_counted_in_looks_so_that_a_pause_of_the_server_is_one_of_them():
    assert list(looks(0.6)) == pytest.approx([0.25, 0.25, 0.1])


def test_a_request_that_ends_every_process_is_given_up_and_the_others_are_served():
    replicas = start_replicas(2, mortal_policy)
    with PolicyServer(replicas, ANY_PORT) as server, RawClient(server.endpoint) as client:
        client.open()
        client.observe(2, observation(101))
        answer = client.receive(timeout_s=30)[0]
        assert isinstance(answer, Error)
        assert (answer.seq, answer.code) == (2, ErrorCode.INTERNAL)
        assert "ended by itself" in answer.message
        client.observe(3, observation(1))
        assert isinstance(client.receive(timeout_s=30)[0], Chunk)
