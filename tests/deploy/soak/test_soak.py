"""A server among a hundred clients for an hour: every request is answered, and memory stays flat.

`make soak`; SOAK_MINUTES=5 for less. What is found is printed (-s).
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.deploy.serving.serving_process import serving
from tests.deploy.soak.memory_trend import trend_of
from tests.deploy.soak.robots import ANSWER_S, CHUNK

from loopdit.deploy.client import PolicyClient

MINUTES = float(os.environ.get("SOAK_MINUTES", "60"))
PROCESSES, CLIENTS = 5, 20
KILL_EVERY_S = 20.0
# The first part fills caches and allocators: it is left out.
SETTLING = 0.25
# What a leak would have to exceed, beside being told from noise: an allocator's own wandering.
GROWTH_MIB = 6.0
# Answers that a well-behaved client gets here; any other is a fault of the server.
EXPECTED = {CHUNK, "welcome", "reset", "pong", "LATE"}
IDLE_S = 60.0


@dataclass
class Crowd:
    """The robots' processes, of which one is killed now and then, and a vandal."""

    endpoint: str
    until_s: float
    started: int = 0
    killed: int = 0
    robots: list["subprocess.Popen[str]"] = field(default_factory=list["subprocess.Popen[str]"])
    vandal: "subprocess.Popen[str] | None" = None

    def come(self) -> None:
        for _ in range(PROCESSES):
            self.robots.append(self._new_robots())
        self.vandal = _python("vandal", self.endpoint, "1", str(self._left_s()))

    def kill_one(self) -> None:
        victim = self.robots.pop(0)
        assert victim.poll() is None, "robots ended by themselves"
        victim.kill()
        victim.communicate()
        self.killed += 1
        self.robots.append(self._new_robots())

    def told(self) -> list[dict[str, object]]:
        """What those that were not killed asked and were answered."""
        outputs = [robot.communicate(timeout=2 * ANSWER_S)[0] for robot in self.robots]
        assert self.vandal is not None
        self.vandal.wait(2 * ANSWER_S)
        assert [robot.returncode for robot in self.robots] == [0] * PROCESSES
        return [json.loads(output) for output in outputs]

    def go(self) -> None:
        for process in (*self.robots, *([self.vandal] if self.vandal else [])):
            process.kill()
            process.communicate()

    def _new_robots(self) -> "subprocess.Popen[str]":
        self.started += 1
        return _python(
            "robots", self.endpoint, str(self.started), str(CLIENTS), str(self._left_s())
        )

    def _left_s(self) -> float:
        return max(1.0, self.until_s - time.monotonic())


def _python(module: str, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", f"tests.deploy.soak.{module}", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def own_memory_mib(process: int) -> float:
    """Of a process alone: what it shares with its clients is theirs."""
    status = Path(f"/proc/{process}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


def descriptors(process: int) -> int:
    return len(list(Path(f"/proc/{process}/fd").iterdir()))


@pytest.mark.soak
@pytest.mark.timeout(60 * MINUTES + 600)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_a_hundred_clients_are_all_answered_and_memory_stays_flat():
    with serving("address=tcp://127.0.0.1:0", "threads=1", "loops=1") as server:
        endpoint = server.until("ready ")[-1].removeprefix("ready ")
        process = server.process.pid
        before = descriptors(process)
        began_s = time.monotonic()
        crowd = Crowd(endpoint, began_s + 60 * MINUTES)
        try:
            crowd.come()
            samples: list[tuple[float, float]] = []
            kill_s = began_s + KILL_EVERY_S
            while (now := time.monotonic()) < crowd.until_s:
                samples.append((now - began_s, own_memory_mib(process)))
                if now >= kill_s and crowd.until_s - now > KILL_EVERY_S:
                    kill_s += KILL_EVERY_S
                    crowd.kill_one()
                time.sleep(1.0)
            told = crowd.told()
        finally:
            crowd.go()
        with PolicyClient(endpoint, timeout_s=ANSWER_S, shared_memory=False) as watcher:
            deadline_s = time.monotonic() + IDLE_S
            while (pong := watcher.ping())["sessions"] != 1:  # its own
                assert time.monotonic() < deadline_s, f"sessions were left: {pong}"
                time.sleep(0.5)
        after = descriptors(process)
        server.process.terminate()
        assert server.end()[0] == 0
    settled = [sample for sample in samples if sample[0] > SETTLING * 60 * MINUTES]
    trend = trend_of(*zip(*settled, strict=True))
    sys.stdout.write(
        f"\n{MINUTES:g} minutes, {PROCESSES * CLIENTS} clients, {crowd.killed} processes of "
        f"{CLIENTS} killed; the server answered {pong['answered']} chunks and {pong['refused']} "
        f"errors\nof those not killed: {told}\nmemory {trend}\n"
        f"descriptors {before} before, {after} after\n"
    )
    for one in told:
        answers = one["answers"]
        assert isinstance(answers, dict)
        assert sum(answers.values()) == one["asked"]
        assert set(answers) <= EXPECTED, answers
        assert answers[CHUNK] > 0
    assert trend.low <= 0 or trend.growth_mib < GROWTH_MIB, f"memory grows: {trend}"
    assert after <= before + 8
