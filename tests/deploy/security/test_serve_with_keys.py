"""`policy-serve` as a user starts it: with keys, with doors, and refused without them."""

import contextlib
import socket
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest

from loopdit.deploy.client import PolicyClient
from loopdit.deploy.messages import WireError
from loopdit.deploy.security.curve import own_keys
from loopdit.eval.rollouts.openpi_policy import OpenPiClient

pytestmark = pytest.mark.system
COMMAND = [sys.executable, "-m", "loopdit.deploy.serving.command"]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def serving(*options: str) -> Generator[tuple[str, list[str]]]:
    command = [*COMMAND, "policy=zeros", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines: list[str] = []
            for line in process.stdout:
                lines.append(line)
                if line.startswith("ready "):
                    break
            assert lines, "it ended before it was ready"
            yield lines[-1].removeprefix("ready ").strip(), lines
        finally:
            process.terminate()
            process.communicate(timeout=30)
    assert process.returncode == 0


def zeros_for(client: PolicyClient) -> dict[str, np.ndarray]:
    return {t.name: np.zeros(t.shape, t.dtype) for t in client.spec.observations}


def test_keys_are_made_and_let_their_owner_in(tmp_path: Path):
    for options in ([f"out={tmp_path}"], [f"out={tmp_path}/clients", "name=arm"]):
        made = subprocess.run([*COMMAND, "keys", *options], capture_output=True, text=True)
        assert made.returncode == 0, made.stderr
        assert "Wrote" in made.stdout
    secret, robot = tmp_path / "server.key_secret", tmp_path / "clients" / "arm.key_secret"
    curve = [f"curve.keys={secret}", f"curve.clients={tmp_path}/clients"]
    with serving("address=tcp://0.0.0.0:0", *curve) as (endpoint, lines):
        address = endpoint.replace("0.0.0.0", "127.0.0.1")
        with PolicyClient(address, keys=robot, server_key=tmp_path / "server.key") as client:
            assert not client.infer(zeros_for(client)).actions.any()
        with pytest.raises(WireError, match="wants to see a key"):
            PolicyClient(address)
        assert not any(own_keys(secret).secret.decode() in line for line in lines)


def test_the_doors_are_open_beside_the_socket():
    openpi = free_port()
    with serving("address=tcp://127.0.0.1:0", f"openpi_port={openpi}") as (endpoint, lines):
        assert f"openpi    ws://127.0.0.1:{openpi}\n" in lines
        with PolicyClient(endpoint) as client:
            request = {
                "observation/image": zeros_for(client)["images.front"],
                "observation/wrist_image": zeros_for(client)["images.wrist"],
                "observation/state": zeros_for(client)["proprio"],
                "prompt": "lift",
            }
        with contextlib.closing(OpenPiClient(f"openpi://127.0.0.1:{openpi}")) as theirs:
            assert theirs.infer(request).shape == (16, 7)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["address=tcp://0.0.0.0:0"], "policy-serve keys"),
        (["curve.keys=a"], "go together"),
        (["openpi_keys='a=b'"], "does nothing without openpi_port=PORT"),
        (["groot_port=70000"], "is no port"),
        (["mode=control", "openpi_port=8000"], "openpi_port=8000 does nothing without mode=reply"),
        (["mode=control", "curve.keys=a"], "go together"),
        (["mode=control", "messages_per_s=5"], "messages_per_s=5.0 does nothing"),
        (["mode=control", "address=tcp://0.0.0.0:0"], "policy-serve keys"),
        (["control.env=lift"], "control.env=lift does nothing without mode=control"),
    ],
)
def test_what_cannot_be_meant_is_one_line(options: list[str], words: str):
    command = [*COMMAND, "policy=zeros", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
