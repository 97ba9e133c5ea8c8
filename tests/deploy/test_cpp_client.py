"""The C++ client, built here and run against a real server."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from tests.deploy.echo_policy import SPEC, EchoPolicy, FailingPolicy, expected_actions

from loopdit.datasets.spec import Observation
from loopdit.deploy.serving.served_policy import Inference
from loopdit.deploy.serving.server import PolicyServer

SOURCE = Path(__file__).parents[2] / "clients" / "cpp" / "loopdit_client.cpp"
HEADERS = ("/usr/include/zmq.h", "/usr/local/include/zmq.h", "/opt/homebrew/include/zmq.h")
pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(
        shutil.which("g++") is None or not any(Path(header).exists() for header in HEADERS),
        reason="no g++ or no libzmq headers (Debian: g++ and libzmq3-dev)",
    ),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("cpp") / "loopdit_client"
    flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror"]
    command = ["g++", *flags, str(SOURCE), "-lzmq", "-o", str(built)]
    subprocess.run(command, check=True, timeout=120)
    return built


def ask(program: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60)


def test_it_gets_the_chunk_for_what_it_sends(program: Path):
    zeros = {t.name: np.zeros(t.shape, t.dtype) for t in SPEC.observations}
    with PolicyServer(EchoPolicy(), "tcp://127.0.0.1:0") as server:
        done = ask(program, server.endpoint)
        assert done.returncode == 0, done.stderr
        printed = np.array([line.split() for line in done.stdout.splitlines()], np.float32)
        np.testing.assert_array_equal(printed, expected_actions(zeros))
        assert "model echo-0, 5 actions of 3, loops 2, steps 10" in done.stderr


class ToldPolicy(EchoPolicy):
    """Refuses all that it is not told to do."""

    def infer(
        self, observation: Observation, *, seed: int, loops: int, steps: int, instruction: str = ""
    ) -> Inference:
        if instruction != "hebe den Würfel":
            raise ValueError("it was told something else")
        return super().infer(observation, seed=seed, loops=loops, steps=steps)


def test_it_says_the_instruction(program: Path):
    with PolicyServer(ToldPolicy(), "tcp://127.0.0.1:0") as server:
        assert ask(program, server.endpoint, "hebe den Würfel").returncode == 0


@pytest.mark.filterwarnings("ignore")
def test_it_says_what_the_server_refused(program: Path):
    with PolicyServer(ToldPolicy(), "tcp://127.0.0.1:0") as server:
        done = ask(program, server.endpoint)
        assert done.returncode == 1
        assert "INTERNAL: the policy raised ValueError" in done.stderr


def test_it_says_that_nobody_is_there(program: Path):
    with PolicyServer(FailingPolicy(), "tcp://127.0.0.1:0") as server:
        endpoint = server.endpoint
    done = ask(program, endpoint)
    assert (done.returncode, "is policy-serve running there" in done.stderr) == (1, True)
