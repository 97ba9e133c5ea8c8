"""Replicas on two machines of a Ray cluster: two network namespaces, and a cable that is cut."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from tests.deploy.serving.serving_process import serving

from loopdit.deploy.client import PolicyClient

pytest.importorskip("ray")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not sys.platform.startswith("linux") or os.geteuid() != 0 or not shutil.which("ip"),
        reason="network namespaces take root, and iproute2",
    ),
]

HEAD, OTHER = "10.201.7.1", "10.201.7.2"


@dataclass(frozen=True)
class Machine:
    name: str
    address: str

    @property
    def within(self) -> list[str]:
        return ["ip", "netns", "exec", self.name]

    def cable(self, state: str) -> None:
        _run("ip", "-n", self.name, "link", "set", self.name, state)


@pytest.fixture
def machines() -> Generator[tuple[Machine, Machine]]:
    head, other = Machine(f"ld{os.getpid()}a", HEAD), Machine(f"ld{os.getpid()}b", OTHER)
    try:
        for machine in (head, other):
            _run("ip", "netns", "add", machine.name)
            _run("ip", "-n", machine.name, "link", "set", "lo", "up")
        ends = ["peer", "name", other.name, "netns", other.name]
        _run("ip", "link", "add", head.name, "netns", head.name, "type", "veth", *ends)
        for machine in (head, other):
            address = ["addr", "add", f"{machine.address}/24", "dev", machine.name]
            _run("ip", "-n", machine.name, *address)
            machine.cable("up")
        _ray(head, "--head", "--port=6379", "--include-dashboard=false")
        _ray(other, f"--address={HEAD}:6379")
        yield head, other
    finally:
        for machine in (head, other):
            _run(*machine.within, str(_RAY), "stop", "--force", check=False)
            _run("ip", "netns", "del", machine.name, check=False)


def test_a_machine_that_is_cut_off_costs_nobody_an_answer_and_takes_part_again(
    machines: tuple[Machine, Machine], tmp_path: Path
):
    head, other = machines
    # A socket of the file system is reached from every network.
    address = f"ipc://{tmp_path}/policy"
    options = ["launcher=ray", "replicas=2", "threads=1", "loops=1", f"address={address}"]
    cluster = ["env", f"RAY_ADDRESS={HEAD}:6379", *head.within]
    with serving(*options, within=cluster) as server, ThreadPoolExecutor(4) as robots:
        server.until("ready")
        assert max(_longest_s(robots, address, for_s=2.0)) < 2.0
        other.cable("down")
        waited_s = _longest_s(robots, address, for_s=10.0)
        assert sum(one > 2.0 for one in waited_s) == 1  # the one whose chunk was computed there
        assert max(waited_s) < 8.0
        other.cable("up")
        while "a replica had ended; started again" not in server.next_error():
            pass
        assert max(_longest_s(robots, address, for_s=2.0)) < 2.0


_RAY = Path(sys.executable).with_name("ray")


def _run(*command: str, check: bool = True) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert not check or done.returncode == 0, f"{command}: {done.stdout} {done.stderr}"


def _ray(machine: Machine, *options: str) -> None:
    at = [f"--node-ip-address={machine.address}", "--num-cpus=1"]
    niceness = ["env", "RAY_worker_niceness=0"]
    _run(*niceness, *machine.within, str(_RAY), "start", *at, *options)


def _longest_s(robots: ThreadPoolExecutor, address: str, for_s: float) -> list[float]:
    """How long each of four robots waited for a chunk at most. Each request has to be answered."""
    return list(robots.map(lambda _: _asks(address, for_s), range(4)))


def _asks(address: str, for_s: float) -> float:
    longest_s, end_s = 0.0, time.monotonic() + for_s
    with PolicyClient(address, timeout_s=30.0, shared_memory=False) as policy:
        seen = {t.name: np.zeros(t.shape, t.dtype) for t in policy.spec.observations}
        while time.monotonic() < end_s:
            chunk = policy.infer(seen, instruction="pick up the red cube")
            longest_s = max(longest_s, chunk.latency_s)
    return longest_s
