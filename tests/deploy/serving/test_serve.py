"""`policy-serve` as a user runs it: a process of its own, over the wire, until a signal."""

import signal

import numpy as np
import pytest
from tests.deploy.serving.serving_process import serving

from loopdit.deploy.backends import load_backend
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.deploy.client import PolicyClient
from loopdit.deploy.serving.served_bundle import ServedBundle

pytestmark = pytest.mark.system


def test_it_serves_the_bundle_at_every_loop_count_until_it_is_told_to_stop(tiny_bundle: Bundle):
    local = ServedBundle(tiny_bundle, load_backend(tiny_bundle, "onnxruntime"))
    observation = {t.name: np.ones(t.shape, t.dtype) for t in tiny_bundle.spec.observations}
    with serving(
        f"bundle={tiny_bundle.path}", "address=tcp://127.0.0.1:0", "backend=onnxruntime", "steps=2"
    ) as server:
        printed = server.until("ready ")
        endpoint = printed[-1].removeprefix("ready ")
        assert endpoint.startswith("tcp://127.0.0.1:")
        assert not endpoint.endswith(":0")
        assert any(tiny_bundle.model_id in line for line in printed)
        assert any("images.front (32, 32, 3) uint8" in line for line in printed)
        assert any(line.split() == ["endpoint", endpoint] for line in printed)
        with PolicyClient(endpoint, timeout_s=30) as client:
            assert (client.model_id, client.spec) == (tiny_bundle.model_id, tiny_bundle.spec)
            assert (client.loops, client.default_loops, client.steps) == ((1, 2), 2, 2)
            for loops in client.loops:
                reply = client.infer(observation, loops=loops, seed=5)
                expected = local.infer(observation, seed=5, loops=loops, steps=2)
                assert (reply.loops, reply.steps) == (loops, 2)
                np.testing.assert_allclose(reply.actions, expected.actions, atol=1e-5)
        server.process.send_signal(signal.SIGTERM)
        assert server.until("stopped")[-1] == "stopped: sessions 0, chunks 2, refused 0"
        assert server.end() == (0, "")


def test_a_port_in_use_is_one_line_and_exit_status_1(tiny_bundle: Bundle):
    with serving(f"bundle={tiny_bundle.path}", "address=tcp://127.0.0.1:0") as first:
        port = first.until("ready ")[-1].rpartition(":")[2]
        with serving(f"bundle={tiny_bundle.path}", f"address=tcp://127.0.0.1:{port}") as second:
            status, errors = second.end()
        assert status == 1
        assert errors.startswith(f"policy-serve: error: port {port} is in use at tcp://127.0.0.1:")
        assert errors.count("\n") == 1
        assert "choose another port: tcp://127.0.0.1:" in errors


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("address=tcp://0.0.0.0:0", "0.0.0.0 is not this machine's loopback address"),
        ("loops=9", "loops=9 is not served. Ask for one of: 1, 2."),
        ("address=tcp://127.0.0.1:70000", "not of the form tcp://HOST:PORT"),
        ("threads=-1", "threads=-1 is below 0"),
    ],
)
def test_an_option_that_cannot_work_is_one_line_and_exit_status_1(
    tiny_bundle: Bundle, option: str, words: str
):
    options = {"address": "address=tcp://127.0.0.1:0", option.split("=")[0]: option}
    with serving(f"bundle={tiny_bundle.path}", *options.values()) as server:
        status, errors = server.end()
    assert status == 1
    assert errors.startswith("policy-serve: error: ")
    assert words in errors
    assert errors.count("\n") == 1
