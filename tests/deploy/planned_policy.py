"""Small policies whose time is known: K x (2 + steps) ms, for two together as for one."""

import os
import time
from collections.abc import Sequence

from tests.deploy.echo_policy import EchoPolicy

from loopdit.datasets.spec import Observation
from loopdit.deploy.serving.planner import ChunkTime, Latency
from loopdit.deploy.serving.served_policy import Asked, Inference, Outcome

MS = 1e-3


class PlannedEcho(EchoPolicy):
    """Answers at once with what it was asked, whatever it says of its time."""

    model_id = "planned-1"
    default_loops = 2
    max_steps: int | None = 20
    stops_early = False
    runs_on = "nothing"
    latency = Latency(
        {
            (k, n): ChunkTime(k * 2 * MS * share, k * MS * share)
            for k in (1, 2)
            for n, share in ((1, 1.0), (2, 1.0), (4, 2.0))
        },
        (1.0,),
    )

    def infer_batch(
        self, asked: Sequence[Asked], *, loops: int, steps: int, may_stop: bool
    ) -> list[Outcome]:
        return [self.infer(a.observation, seed=a.seed, loops=loops, steps=steps) for a in asked]


class MortalPolicy(PlannedEcho):
    """By x: below 0 it raises, above 100 its process ends, above 10 it takes 0.1 s."""

    def infer(
        self, observation: Observation, *, seed: int, loops: int, steps: int, instruction: str = ""
    ) -> Inference:
        x = observation["proprio"][0]
        if x < 0:
            raise ValueError("x is negative")
        if x > 100:
            os._exit(3)
        if x > 10:
            time.sleep(0.1)
        return super().infer(observation, seed=seed, loops=loops, steps=steps)


def mortal_policy(model_id: str = "mortal-1") -> MortalPolicy:
    """To be made in another process."""
    made = MortalPolicy()
    made.model_id = model_id
    return made
