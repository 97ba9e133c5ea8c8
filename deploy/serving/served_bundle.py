"""A bundle on a back end, as the server wants it: one observation in, one timed chunk out.

The starting noise comes from the request's seed, so a request computes the same chunk again.
"""

import time

import numpy as np

from loopdit.datasets.spec import Observation, PolicySpec
from loopdit.deploy.backends import Backend
from loopdit.deploy.backends.protocol import WholeChunkBackend
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.deploy.serving.served_policy import Inference
from loopdit.policy.encoders.absent_cameras import complete_observation
from loopdit.policy.encoders.vocabulary import INSTRUCTION


class ServedBundle:
    """See `served_policy.ServedPolicy`."""

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        self.backend = backend
        self.spec: PolicySpec = bundle.spec
        self.model_id = bundle.model_id
        self.horizon = bundle.horizon
        self.loops = bundle.loops
        self.default_loops = bundle.default_loops
        self.steps = bundle.steps
        self._bundle = bundle

    def infer(
        self, observation: Observation, *, seed: int, loops: int, steps: int, instruction: str = ""
    ) -> Inference:
        """One observation, already checked against the spec -> actions (H, A) in raw units.

        Raises BundleError for a K that was not exported, ConfigError for steps that the sampler
        has not, ObservationError for an instruction that the policy cannot understand.
        """
        self._bundle.require_loops(loops)
        self._bundle.require_steps(steps)
        told = self._bundle.manifest.told(instruction)
        given = complete_observation(self.spec, observation)
        if told is not None:
            given[INSTRUCTION] = told
        batched = {name: value[None] for name, value in given.items()}
        drawn = starting_noise(seed, 1, self.horizon, self.spec.action.shape[0])
        noise = np.float32(self._bundle.temperature) * drawn
        began = time.perf_counter_ns()
        if isinstance(self.backend, WholeChunkBackend):  # encodes and denoises as one: all is later
            encoded, actions = began, self.backend.chunk(batched, loops, noise, steps)[0]
        else:
            context = self.backend.encode(batched, loops)
            encoded = time.perf_counter_ns()
            actions = self.backend.denoise(context, noise, steps)[0]
        done = time.perf_counter_ns()
        return Inference(
            actions=actions,
            loops=loops,
            steps=steps,
            encode_us=(encoded - began) // 1000,
            denoise_us=(done - encoded) // 1000,
        )

    def warm_up(self) -> None:
        """Run each K once, so that no request pays for loading, packing or capturing."""
        blank = {t.name: np.zeros(t.shape, t.dtype) for t in self.spec.observations}
        said = next(iter(self._bundle.manifest.instructions), "")
        for loops in self.loops:
            self.infer(blank, seed=0, loops=loops, steps=self.steps, instruction=said)


def starting_noise(seed: int, batch: int, horizon: int, action_dim: int) -> np.ndarray:
    """Standard normal (batch, horizon, action_dim) float32 that depends on `seed` alone."""
    generator = np.random.Generator(np.random.Philox(seed))
    return generator.standard_normal((batch, horizon, action_dim), dtype=np.float32)
