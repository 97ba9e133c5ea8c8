"""A bundle on a back end, as the server wants it: observations in, timed chunks out.

The starting noise comes from the request's seed, so a request computes the same chunk again, alone
or in a batch (to rounding).
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from loopdit.datasets.spec import Observation, PolicySpec
from loopdit.deploy.backends import FP32, Backend
from loopdit.deploy.backends.protocol import AdaptiveBackend, WholeChunkBackend
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.deploy.robot.guide import GUIDE, padded
from loopdit.deploy.serving.planner import PAYS, UNMEASURED, Latency, Rung
from loopdit.deploy.serving.rung_latency import (
    BATCHES,
    fastest,
    latency_of,
    recorded_latency,
    timed,
    with_batches,
)
from loopdit.deploy.serving.served_policy import Asked, Inference, Outcome
from loopdit.errors import BundleError, ObservationError
from loopdit.machine import machine_and_versions
from loopdit.policy.encoders.absent_cameras import complete_observation
from loopdit.policy.encoders.vocabulary import INSTRUCTION
from loopdit.policy.stopping_rule import StoppingRule

# They build or compile for each size, for seconds to minutes: only where a batch is asked for.
_SLOW_TO_PREPARE = ("tensorrt", "tensorrt-rtx", "onnxruntime-tensorrt", "torch-compile")

if TYPE_CHECKING:  # it needs torch, which serving does not
    from loopdit.deploy.backends.guided import GuidedSampler


class ServedBundle:
    """See `served_policy.PlannedPolicy`. `latency` is UNMEASURED until `measure` was called."""

    def __init__(self, bundle: Bundle, backend: Backend, jacobian: str = "identity") -> None:
        self.backend = backend
        self.spec: PolicySpec = bundle.spec
        self.model_id = bundle.model_id
        self.horizon = bundle.horizon
        self.loops = bundle.loops
        self.default_loops = bundle.default_loops
        self.steps = bundle.steps
        self.max_steps = bundle.manifest.max_steps
        self.latency: Latency = UNMEASURED
        self.bundle = bundle
        self._jacobian = jacobian
        self._guided: GuidedSampler | None = None  # made when first asked for

    @cached_property
    def stopping_rule(self) -> StoppingRule | None:
        """When more loops change nothing, where the bundle was calibrated and the back end can
        tell; None: every chunk takes the loops that were asked for."""
        found = self.bundle.manifest.adaptive
        able = isinstance(self.backend, AdaptiveBackend) and self.backend.precision == FP32
        if found is None or not able:
            return None
        return StoppingRule(float(found["threshold"]), str(found["measure"]))

    @property
    def runs_on(self) -> str:
        """The back end, for people."""
        backend = self.backend
        return f"{backend.name} on {backend.device}, {backend.precision}, threads {backend.threads}"

    @property
    def stops_early(self) -> bool:
        """See `PlannedPolicy.stops_early`."""
        return self.stopping_rule is not None

    def infer(
        self, observation: Observation, *, seed: int, loops: int, steps: int, instruction: str = ""
    ) -> Inference:
        """One observation, already checked against the spec -> actions (H, A) in raw units.

        With GUIDE (n, A + 1) beside the spec's tensors the chunk is pulled towards it (see
        `deploy.robot.guide`). Raises BundleError for a K that was not exported, ConfigError for
        steps that the sampler has not, ObservationError for an instruction that the policy cannot
        understand.
        """
        asked = Asked(observation, seed, instruction)
        (made,) = self.infer_batch([asked], loops=loops, steps=steps, may_stop=False)
        if isinstance(made, Exception):
            raise made
        return made

    def infer_batch(
        self, asked: Sequence[Asked], *, loops: int, steps: int, may_stop: bool
    ) -> list[Outcome]:
        """See `PlannedPolicy.infer_batch`. Those with a guide are computed one by one."""
        self.bundle.require_loops(loops)
        self.bundle.require_steps(steps)
        outcomes: dict[int, Outcome] = {}
        together: dict[int, dict[str, np.ndarray]] = {}
        for i, one in enumerate(asked):
            try:
                inputs = self._inputs(one)
            except ObservationError as error:
                outcomes[i] = error
                continue
            if GUIDE in one.observation:
                outcomes[i] = self._guided_chunk(one, inputs, loops, steps)
            else:
                together[i] = inputs
        if together:
            noise = np.concatenate([self._noise(asked[i]) for i in together])
            given = {
                name: _stacked(together.values(), name) for name in next(iter(together.values()))
            }
            made = self._chunks(given, noise, loops, steps, may_stop)
            outcomes.update(zip(together, made, strict=True))
        return [outcomes[i] for i in range(len(asked))]

    def guided(self) -> "GuidedSampler":
        """What samples a chunk that keeps to a guide. Raises BundleError where there is none."""
        if self._guided is None:
            from loopdit.deploy.backends.guided import GuidedSampler

            self._guided = GuidedSampler(self.bundle, self.backend, self._jacobian)
        return self._guided

    def warm_up(self) -> None:
        """Run each K once, so that no request pays for loading, packing or capturing."""
        for loops in self.loops:
            self._run_blank(Rung(loops, self.steps), 1)

    def measure(self, rungs: Sequence[Rung], most_batch: int = 0) -> None:
        """Warm up what may be chosen while serving, a ladder's `rungs` and every other K, and set
        `latency`: from the bundle's table of this machine, else from what the warm-up took.

        most_batch: the largest batch; 0: those that are soon prepared.
        """
        slow = self.backend.name in _SLOW_TO_PREPARE
        most = most_batch or (1 if slow else max(BATCHES))
        pinned = [Rung(k, rungs[0].steps) for k in self.loops]
        every = dict.fromkeys([*rungs, *pinned])
        sizes = [n for n in BATCHES if n <= most]
        if sizes and not self._pays(rungs[0], sizes[-1]):
            sizes = []
        measured = latency_of(timed(self._run_blank, every, sizes, self._own_clock))
        runs = {key: getattr(self.backend, key) for key in ("precision", "threads")}
        recorded = recorded_latency(
            self.bundle.manifest.latency,
            machine_and_versions()["machine"],
            {"backend": self.backend.name, **runs},
            self.loops,
        )
        self.latency = measured if recorded is None else with_batches(recorded, measured)

    def _pays(self, rung: Rung, batch: int) -> bool:
        """Whether it is worth preparing batches for: a back end that computes them one by one is
        told by its deepest rung."""
        times = timed(self._run_blank, [rung], [batch], self._own_clock)
        return fastest(times[rung, batch]) < PAYS * batch * fastest(times[rung, 1])

    @property
    def _own_clock(self) -> Callable[[], float]:
        alone = self.backend.device == "cpu" and self.backend.threads == 1
        return time.process_time if alone else time.perf_counter

    def _run_blank(self, rung: Rung, batch: int) -> None:
        blank = {t.name: np.zeros(t.shape, t.dtype) for t in self.spec.observations}
        said = next(iter(self.bundle.manifest.instructions), "")
        asked = [Asked(blank, 0, said)] * batch
        # As it is served: with what finding a good depth costs, where that is done.
        may_stop = self.stops_early
        for outcome in self.infer_batch(
            asked, loops=rung.loops, steps=rung.steps, may_stop=may_stop
        ):
            if isinstance(outcome, Exception):
                raise outcome

    def _inputs(self, one: Asked) -> dict[str, np.ndarray]:
        """Everything that the back end takes but the batch axis."""
        told = self.bundle.manifest.told(one.instruction)
        observed = {name: value for name, value in one.observation.items() if name != GUIDE}
        inputs = complete_observation(self.spec, observed)
        return inputs if told is None else {**inputs, INSTRUCTION: told}

    def _noise(self, one: Asked) -> np.ndarray:
        """(1, H, A)"""
        drawn = starting_noise(one.seed, 1, self.horizon, self.spec.action.shape[0])
        return np.float32(self.bundle.temperature) * drawn

    def _chunks(
        self,
        given: Mapping[str, np.ndarray],
        noise: np.ndarray,
        loops: int,
        steps: int,
        may_stop: bool,
    ) -> list[Inference]:
        """A chunk for each row of `given` and of the noise (B, H, A)."""
        backend, rule = self.backend, self.stopping_rule
        taken = [loops] * len(noise)
        began = time.perf_counter_ns()
        encoded = began  # computed as one: all of it is counted as denoising
        if may_stop and rule is not None and isinstance(backend, AdaptiveBackend):
            actions, taken = backend.adaptive_chunk(given, loops, noise, steps, rule)
        elif isinstance(backend, WholeChunkBackend):
            actions = backend.chunk(given, loops, noise, steps)
        else:
            context = backend.encode(given, loops)
            encoded = time.perf_counter_ns()
            actions = backend.denoise(context, noise, steps)
        done = time.perf_counter_ns()
        parts = (encoded - began) // 1000, (done - encoded) // 1000
        return [Inference(a, int(k), steps, *parts) for a, k in zip(actions, taken, strict=True)]

    def _guided_chunk(
        self, one: Asked, inputs: Mapping[str, np.ndarray], loops: int, steps: int
    ) -> Outcome:
        wanted = padded(one.observation[GUIDE], self.horizon)[None]
        began = time.perf_counter_ns()
        try:
            guided = self.guided()
        except BundleError as error:  # whoever asks for it can do without
            return ObservationError(str(error))
        context = self.backend.encode({name: value[None] for name, value in inputs.items()}, loops)
        encoded = time.perf_counter_ns()
        actions = guided.denoise(context, self._noise(one), steps, wanted)[0]
        done = time.perf_counter_ns()
        return Inference(actions, loops, steps, (encoded - began) // 1000, (done - encoded) // 1000)


def starting_noise(seed: int, batch: int, horizon: int, action_dim: int) -> np.ndarray:
    """Standard normal (batch, horizon, action_dim) float32 that depends on `seed` alone."""
    generator = np.random.Generator(np.random.Philox(seed))
    return generator.standard_normal((batch, horizon, action_dim), dtype=np.float32)


def _stacked(rows: Collection[Mapping[str, np.ndarray]], name: str) -> np.ndarray:
    # A view of a message where it is alone: a frame is not copied for a batch of one.
    if len(rows) == 1:
        return next(iter(rows))[name][None]
    return np.stack([row[name] for row in rows])
