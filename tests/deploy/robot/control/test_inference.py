import threading

import numpy as np

from loopdit.datasets.spec import Observation
from loopdit.deploy.clock import MonotonicClock
from loopdit.deploy.robot.control.controller import ChunkRequest
from loopdit.deploy.robot.control.inference import Inference
from loopdit.deploy.serving import served_policy
from loopdit.deploy.serving.offer import offer_of
from loopdit.deploy.serving.zeros_policy import ZerosPolicy, zeros_for


class Held(ZerosPolicy):
    """Computes until it is let go."""

    begun, let_go = threading.Event(), threading.Event()

    def infer(
        self, observation: Observation, *, seed: int, loops: int, steps: int, instruction: str = ""
    ) -> served_policy.Inference:
        self.begun.set()
        assert self.let_go.wait(10)
        return super().infer(observation, seed=seed, loops=loops, steps=steps)


def test_what_is_under_way_ends_before_stopping_does():
    policy = Held(zeros_for("").spec)
    inference = Inference(policy, offer_of(policy, 0, 0), 0.1, MonotonicClock())
    inference.start()
    inference.ask(ChunkRequest(({},), {}, "", 0, 0, np.empty((0, 7), np.float32)))
    assert policy.begun.wait(10)
    threading.Timer(0.05, policy.let_go.set).start()
    inference.stop()
    assert policy.let_go.is_set()
    done = inference.done()
    assert done is not None
    assert done.actions is not None
