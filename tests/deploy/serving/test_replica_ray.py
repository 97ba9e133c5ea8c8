"""Replicas as actors of a Ray cluster, here one of this machine's own."""

import time
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
from tests.deploy.echo_policy import SPEC, expected_actions, observation
from tests.deploy.planned_policy import MortalPolicy, mortal_policy
from tests.deploy.raw_client import ANY_PORT, RawClient
from tests.deploy.serving.serving_process import serving

from loopdit.deploy.bundle.bundle import Bundle, default_bundle
from loopdit.deploy.client import PolicyClient
from loopdit.deploy.messages import Chunk, Error, ErrorCode
from loopdit.deploy.serving.replica import Replica, close_all, load_replicas, warm_replicas
from loopdit.deploy.serving.replica_ray import RayReplica, connect
from loopdit.deploy.serving.replica_side import Recipe
from loopdit.deploy.serving.served_policy import Asked, PlannedPolicy, ReplicaLost, Revivable
from loopdit.deploy.serving.server import PolicyServer
from loopdit.errors import BundleError, ConfigError

# Starting Ray takes half a minute on a busy machine.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
ray = pytest.importorskip("ray")

MORTAL = Recipe.of(mortal_policy)


def warmed(policy: PlannedPolicy) -> None:
    assert isinstance(policy, MortalPolicy)
    policy.model_id = "mortal-1"
    policy.runs_on = "something warm"


def no_bundle() -> PlannedPolicy:
    raise BundleError("there is no such bundle.")


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    connect(cpus=4)
    yield
    ray.shutdown()


@pytest.fixture
def replicas() -> Iterator[list[Replica]]:
    made = load_replicas(2, partial(RayReplica, MORTAL, 1.0, 0.0))
    warm_replicas(made)
    yield made
    close_all(made)


def test_an_actor_is_the_policy_that_it_made_and_warmed():
    (made,) = load_replicas(1, partial(RayReplica, Recipe(mortal_policy, warmed), 1.0, 0.0))
    policy: PlannedPolicy = made
    assert isinstance(made, Revivable)
    assert (policy.model_id, policy.spec, made.runs_on) == ("mortal-1", SPEC, "nothing")
    warm_replicas([made])
    assert made.runs_on == "something warm"
    chunk = policy.infer(observation(2), seed=1 << 100, loops=1, steps=3)
    np.testing.assert_array_equal(chunk.actions, expected_actions(observation(2), 1 << 100, 1, 3))
    close_all([made])


def test_one_that_cannot_be_made_says_why():
    with pytest.raises(BundleError, match="there is no such bundle"):
        load_replicas(1, partial(RayReplica, Recipe.of(no_bundle), 1.0, 0.0))


def test_an_actor_that_ends_is_noticed_and_started_again(replicas: list[Replica]):
    replica = replicas[0]
    with pytest.raises(ReplicaLost, match="Ray actor that computed is gone"):
        replica.infer_batch([Asked(observation(101), 0)], loops=1, steps=1, may_stop=False)
    deadline = time.monotonic() + 30
    while replica.alive:
        assert time.monotonic() < deadline
    replica.revive()
    assert replica.alive
    assert replica.infer(observation(1), seed=0, loops=1, steps=1).loops == 1


def test_a_server_loses_no_request_to_an_actor_that_ends(replicas: list[Replica]):
    with PolicyServer(replicas, ANY_PORT) as server, RawClient(server.endpoint) as client:
        client.open()
        client.observe(2, observation(101))  # ends each that it comes to
        answer = client.receive(timeout_s=60)[0]
        assert isinstance(answer, Error)
        assert (answer.seq, answer.code) == (2, ErrorCode.INTERNAL)
        client.observe(3, observation(1))
        chunk, tensors = client.receive(timeout_s=60)
        assert isinstance(chunk, Chunk)
        np.testing.assert_array_equal(tensors["action"], expected_actions(observation(1)))


def test_a_cluster_that_is_not_there_is_one_clear_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "not an address")
    with pytest.raises(ConfigError, match="launcher=ray cannot reach RAY_ADDRESS=not an address"):
        connect(cpus=1)


def test_policy_serve_computes_on_a_cluster_what_it_computes_alone():
    spec = Bundle.open(default_bundle()).spec
    seen = {t.name: np.ones(t.shape, t.dtype) for t in spec.observations}
    words = Bundle.open(default_bundle()).manifest.instructions[0]
    chunks: list[np.ndarray] = []
    for options in ((), ("launcher=ray", "replicas=2", "threads=1")):
        with serving("backend=onnxruntime", f"address={ANY_PORT}", *options) as server:
            lines = [server.until("")[-1]]
            while not lines[-1].startswith("ready "):
                lines.append(server.until("")[-1])
            with PolicyClient(lines[-1].removeprefix("ready "), timeout_s=60) as client:
                chunks.append(client.infer(seen, seed=7, loops=2, instruction=words).actions)
            server.process.terminate()
            assert server.end()[0] == 0
    assert any("2 processes, each onnxruntime" in line for line in lines)
    np.testing.assert_allclose(chunks[1], chunks[0], atol=1e-5)
