"""What goes wrong around a `policy-serve` process: it is killed, paused, told to stop, its bundle
is replaced, one of its processes ends. Real processes, real signals."""

import os
import signal
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.deploy.serving.serving_process import Serving, serving

from loopdit.deploy.bundle.bundle import Bundle
from loopdit.deploy.bundle.writer import write_manifest
from loopdit.deploy.client import PolicyClient
from loopdit.deploy.messages import ErrorCode, WireError

pytestmark = pytest.mark.system

LONG = 1000  # denoising steps: a good part of a second


def observation(bundle: Bundle) -> dict[str, np.ndarray]:
    return {t.name: np.ones(t.shape, t.dtype) for t in bundle.spec.observations}


@contextmanager
def asking(client: PolicyClient, bundle: Bundle, steps: int) -> Generator[list[object]]:
    """Ask in another thread; in the end the list has the reply, or what was raised."""
    got: list[object] = []

    def ask() -> None:
        try:
            got.append(client.infer(observation(bundle), steps=steps))
        except WireError as error:
            got.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield got
    finally:
        thread.join(timeout=60)


def until_busy(watcher: PolicyClient) -> None:
    """It is connected before it is asked: a greeting may take longer than a chunk."""
    deadline_s = time.monotonic() + 20
    while not watcher.ping()["busy_us"]:
        assert time.monotonic() < deadline_s, "it was never seen to compute"
        time.sleep(0.005)


def endpoint_of(server: Serving) -> str:
    return server.until("ready ")[-1].removeprefix("ready ")


def test_a_client_outlives_its_servers_pause_and_death(tiny_bundle: Bundle):
    options = [f"bundle={tiny_bundle.path}", "backend=torch"]
    with serving(*options, "address=tcp://127.0.0.1:0") as first:
        endpoint = endpoint_of(first)
        with PolicyClient(endpoint, timeout_s=30) as client:
            client.infer(observation(tiny_bundle))
            # Paused for two seconds: a typed timeout, then the same client is served again.
            first.process.send_signal(signal.SIGSTOP)
            # All its threads: on a busy machine one may still answer after the signal was sent.
            os.waitid(os.P_PID, first.process.pid, os.WSTOPPED)
            client.timeout_s = 0.5
            with pytest.raises(WireError) as caught:
                client.infer(observation(tiny_bundle))
            assert caught.value.code == ErrorCode.TIMEOUT
            time.sleep(1.5)
            first.process.send_signal(signal.SIGCONT)
            client.timeout_s = 30
            reply = client.infer(observation(tiny_bundle), seed=1)
            # Killed while it computes: a typed error, and the next server is greeted.
            client.timeout_s = 2.0
            with (
                PolicyClient(endpoint, timeout_s=30) as watcher,
                asking(client, tiny_bundle, LONG) as got,
            ):
                until_busy(watcher)
                first.process.kill()
            (error,) = got
            assert isinstance(error, WireError)
            assert error.code in (ErrorCode.TIMEOUT, ErrorCode.CLOSING)  # its lane ended
            assert error.retryable
            with serving(*options, f"address={endpoint}") as second:
                assert endpoint_of(second) == endpoint
                client.timeout_s = 30
                again = client.infer(observation(tiny_bundle), seed=1)
                np.testing.assert_array_equal(again.actions, reply.actions)


def test_sigterm_lets_what_is_in_compute_finish(tiny_bundle: Bundle):
    with serving(
        f"bundle={tiny_bundle.path}", "backend=torch", "address=tcp://127.0.0.1:0"
    ) as server:
        endpoint = endpoint_of(server)
        with PolicyClient(endpoint, timeout_s=30) as client:
            with (
                PolicyClient(endpoint, timeout_s=30) as watcher,
                asking(client, tiny_bundle, LONG) as got,
            ):
                until_busy(watcher)
                server.process.send_signal(signal.SIGTERM)
            (reply,) = got
            assert getattr(reply, "steps", reply) == LONG
        assert server.until("stopped")[-1].startswith("stopped: sessions 0, chunks 1")
        assert server.end() == (0, "")


def altered_model(bundle: Path) -> str:
    """Makes it another model of the same spec and graphs; its id."""
    from safetensors.numpy import load_file, save_file

    from loopdit.deploy.bundle.bundle import file_entry, model_id

    manifest = Bundle.open(bundle).manifest
    weights = load_file(bundle / "model.safetensors")
    name = next(iter(weights))
    save_file({**weights, name: weights[name] * 1.0001}, bundle / "model.safetensors")
    files = {name: file_entry(bundle / name) for name in manifest.files}
    identity = model_id(files["model.safetensors"].sha256, manifest.spec)
    write_manifest(bundle, replace(manifest, model_id=identity, files=files, witness=None))
    return identity


def test_a_bundle_is_swapped_while_it_serves_and_a_broken_one_is_not(bundle_copy: Path):
    bundle = Bundle.open(bundle_copy)
    with serving(
        f"bundle={bundle_copy}", "backend=onnxruntime", "address=tcp://127.0.0.1:0"
    ) as server:
        endpoint = endpoint_of(server)
        models: list[str] = []
        stop = threading.Event()

        def ask() -> None:
            with PolicyClient(endpoint, timeout_s=60) as client:
                while not stop.is_set():
                    models.append(client.infer(observation(bundle)).model_id)  # or raises
                    time.sleep(0.005)
            models.append("whole")

        client = threading.Thread(target=ask)
        client.start()
        try:
            whole = (bundle_copy / "checkpoint.json").read_bytes()
            (bundle_copy / "checkpoint.json").write_bytes(whole[:-40])
            server.process.send_signal(signal.SIGHUP)
            refused = server.next_error()
            assert "not reloaded, model " in refused
            assert "checkpoint.json is truncated or altered" in refused
            (bundle_copy / "checkpoint.json").write_bytes(whole)
            identity = altered_model(bundle_copy)
            server.process.send_signal(signal.SIGHUP)
            assert server.until("reloaded")[-1] == (
                f"reloaded: model {identity} in the place of {bundle.model_id}"
            )
            count = len(models)
            while len(models) < count + 5:
                time.sleep(0.01)
                assert client.is_alive()
        finally:
            stop.set()
            client.join(timeout=60)
    assert models[-1] == "whole"
    assert models[0] == bundle.model_id
    assert models[-2] == identity
    swapped = models.index(identity)
    assert set(models[swapped:-1]) == {identity}


def test_a_replica_that_is_killed_is_started_again_and_nobody_notices(tiny_bundle: Bundle):
    with serving(
        f"bundle={tiny_bundle.path}",
        "backend=onnxruntime",
        "replicas=2",
        "address=tcp://127.0.0.1:0",
    ) as server:
        printed = server.until("ready ")
        assert any("2 processes, each onnxruntime on cpu" in line for line in printed)
        with PolicyClient(printed[-1].removeprefix("ready "), timeout_s=60) as client:
            expected = client.infer(observation(tiny_bundle), seed=3).actions
            for child in replicas_of(server.process.pid):
                os.kill(child, signal.SIGKILL)
                for _ in range(5):
                    reply = client.infer(observation(tiny_bundle), seed=3)
                    np.testing.assert_array_equal(reply.actions, expected)
            assert "a replica had ended; started again in" in server.next_error()
        server.process.send_signal(signal.SIGTERM)
        server.until("stopped")


def replicas_of(server: int) -> list[int]:
    """Child processes that compute (Python's own helper is one, too)."""
    children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    return [
        int(child)
        for child in children
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]
