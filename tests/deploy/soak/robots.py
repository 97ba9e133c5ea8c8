"""Robots for a soak: well-behaved clients of a real server, each doing what robots do, at random.

    python -m tests.deploy.soak.robots ENDPOINT SEED CLIENTS SECONDS

A process of this may be killed at any moment, as robots' programs are. One that comes to its end
prints what its clients asked and what they were answered, as JSON: every request counts, and one
that got no answer is a TIMEOUT.
"""

import json
import sys
import threading
import time
from collections import Counter

import numpy as np

from loopdit.datasets.spec import Observation, PolicySpec
from loopdit.deploy.client import PolicyClient
from loopdit.deploy.messages import WireError

# Far beyond what a busy machine takes: whoever waits so long was forgotten.
ANSWER_S = 60.0
PACE_S = 1.0  # between two requests of a client, on average
CHUNK = "chunk"


class Robot:
    """One client for `seconds`; `counts` is what its requests came to."""

    def __init__(self, endpoint: str, seed: int, seconds: float) -> None:
        self._endpoint = endpoint
        self._random = np.random.default_rng(seed)
        self._until_s = time.monotonic() + seconds
        self._kind = seed % 4
        self.asked = 0
        self.counts = Counter[str]()
        self.thread = threading.Thread(target=self._live)

    def _live(self) -> None:
        while time.monotonic() < self._until_s:
            try:
                with self._connected() as client:
                    self._converse(client)
            except WireError as error:
                self._note(str(error.code))

    def _connected(self) -> PolicyClient:
        self.asked += 1
        client = PolicyClient(
            self._endpoint,
            timeout_s=ANSWER_S,
            shared_memory=self._kind in (0, 1),
            jpeg_quality=90 if self._kind in (1, 2) else 0,
        )
        self._note("welcome")
        return client

    def _converse(self, client: PolicyClient) -> None:
        """Until it hangs up, or its time has come."""
        seen = frames(client.spec, self._random)
        while time.monotonic() < self._until_s:
            time.sleep(float(self._random.exponential(PACE_S)))
            choice = self._random.random()
            if choice < 0.02:
                return
            self.asked += 1
            if choice < 0.10:
                client.reset(int(self._random.integers(100)))
                self._note("reset")
            elif choice < 0.15:
                client.ping()
                self._note("pong")
            else:
                # Some want it sooner than it can be: those are refused, which is an answer.
                budget_s = (None, 0.001, 0.1, 1.0)[int(self._random.integers(4))]
                self._infer(client, seen, budget_s)

    def _infer(self, client: PolicyClient, seen: Observation, budget_s: float | None) -> None:
        try:
            reply = client.infer(seen, budget_s=budget_s, instruction=INSTRUCTION)
        except WireError as error:
            self._note(str(error.code))
        else:
            assert np.isfinite(reply.actions).all()
            self._note(CHUNK)

    def _note(self, what: str) -> None:
        self.counts[what] += 1


INSTRUCTION = "pick up the red cube"


def frames(spec: PolicySpec, random: np.random.Generator) -> Observation:
    """Something to observe."""
    return {
        t.name: random.integers(0, 255, t.shape).astype(t.dtype)
        if t.is_image
        else np.zeros(t.shape, t.dtype)
        for t in spec.observations
    }


def main() -> None:
    """Live, and tell."""
    endpoint, seed, clients, seconds = sys.argv[1:]
    robots = [
        Robot(endpoint, 1000 * int(seed) + number, float(seconds)) for number in range(int(clients))
    ]
    for robot in robots:
        robot.thread.start()
    for robot in robots:
        robot.thread.join()
    total: Counter[str] = sum((robot.counts for robot in robots), Counter[str]())
    told = {"asked": sum(robot.asked for robot in robots), "answers": dict(total)}
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
