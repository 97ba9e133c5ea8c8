"""The policy as robots know it: raw observations in, raw action chunks out, at any depth.

Shapes: B batch, O observed steps (an axis where the policy has history), H action horizon, A action
dim, K loops, L = K * blocks. This float32 module is the reference that every exported graph and
every back end is compared with.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from loopdit.datasets.spec import PROPRIO, PolicySpec
from loopdit.policy.flow_matching import euler_step, integrate, sample_times
from loopdit.policy.looped_dit import ExitLosses, LoopedDiT, LoopedDiTConfig
from loopdit.policy.normalizer import Normalizer

# Euler steps of the sampler where nobody says otherwise.
DEFAULT_STEPS = 10
# Spread of the starting noise where nobody says otherwise. At 1 a chunk is a fair draw from what
# the policy believes, at 0 its best guess: on `lift` a fair draw fails a third of the starts early
# in training, and the best guess needs the fewest steps after it
# (docs/experiments/2026-11-23-lift.md). Where demonstrations choose between ways that must not be
# averaged, export with more.
DEFAULT_TEMPERATURE = 0.0


class Draws(NamedTuple):
    """What chance decides about a batch in training.

    The starting noise (B, H, A) and its times (B,), the noise on the proprio (B, O, P): standard
    normal and in [0, 1]. Drawn before the losses, so that a batch may be split after it.
    """

    noise: Tensor
    times: Tensor
    proprio: Tensor

    def rows(self, start: int, stop: int) -> "Draws":
        """Those of the windows from `start` to below `stop`."""
        return Draws(*(values[start:stop] for values in self))


class LoopedPolicy(nn.Module):
    """A normaliser around a looped DiT, for one spec.

    `spec` is of the policy: with the history that `config` asks for, whatever it was given.
    """

    def __init__(self, spec: PolicySpec, config: LoopedDiTConfig) -> None:
        super().__init__()
        self.spec = spec.without_history().with_history(config.history)
        self.config = config
        self.normalizer = Normalizer(self.spec)
        self.model = LoopedDiT(
            config, len(spec.cameras), spec.proprio.shape[-1], spec.action.shape[-1]
        )

    @property
    def horizon(self) -> int:
        """Actions in a chunk, H."""
        return self.config.action_horizon

    @property
    def max_loops(self) -> int:
        """The deepest K."""
        return self.config.max_loops

    def encode(self, observation: Mapping[str, Tensor], loops: int) -> tuple[Tensor, Tensor]:
        """Raw batched observation -> keys and values, each (L, B, heads, N, d), for K = `loops`."""
        frames, proprio = self._normalized(observation)
        return self.model.encode(frames, proprio, loops)

    def denoise_step(
        self, sample: Tensor, t: Tensor, dt: Tensor, keys: Tensor, values: Tensor
    ) -> Tensor:
        """One Euler step of the sample (B, H, A) from time t (B,) to t + dt, normalised units."""
        return euler_step(sample, self.model.predict(sample, t, keys, values), t, dt)

    def to_actions(self, sample: Tensor) -> Tensor:
        """A sample at time 1 (B, H, A) -> raw actions (B, H, A) within the spec's limits."""
        return self.normalizer.raw_chunk(sample)

    @torch.inference_mode()
    def act(
        self,
        observation: Mapping[str, Tensor],
        noise: Tensor,
        loops: int,
        steps: int = DEFAULT_STEPS,
    ) -> Tensor:
        """Raw batched observation and noise (B, H, A) -> raw actions (B, H, A)."""
        keys, values = self.encode(observation, loops)
        sample = integrate(
            lambda sample, t: self.model.predict(sample, t, keys, values), noise, steps
        )
        return self.to_actions(sample)

    def draw(self, count: int, generator: torch.Generator) -> Draws:
        """For `count` windows, on the generator's device."""
        device = generator.device
        chunk = (count, self.horizon, *self.spec.action.shape)
        proprio = (count, *self.spec.proprio.shape)
        return Draws(
            noise=torch.randn(chunk, generator=generator, device=device),
            times=sample_times(count, generator),
            proprio=torch.randn(proprio, generator=generator, device=device),
        )

    def losses(
        self,
        observation: Mapping[str, Tensor],
        actions: Tensor,
        valid: Tensor,
        draws: Draws,
        distill: float,
        proprio_noise: float = 0.0,
        seen: Tensor | None = None,
    ) -> ExitLosses:
        """Training losses of each exit, from raw observations and actions (B, H, A).

        `seen` (B, O) bool hides past observations where it is false (see `training/augmentation`).
        `proprio_noise` (in normalised units) keeps the policy from reading its next action off
        its own pose to a precision that a real arm does not have.
        """
        frames, proprio = self._normalized(observation)
        if proprio_noise:
            proprio = proprio + proprio_noise * draws.proprio
        chunk = self.normalizer.chunk(actions)
        noise, times = draws.noise, draws.times
        return self.model.loss(frames, proprio, chunk, valid, noise, times, distill, seen)

    def _normalized(self, observation: Mapping[str, Tensor]) -> tuple[list[Tensor], Tensor]:
        raw = [observation[camera.name] for camera in self.spec.cameras]
        if self.config.history == 1:
            frames = [self.normalizer.frame(frame) for frame in raw]
        else:
            steps = (-1, self.config.history)
            frames = [self.normalizer.frame(f.flatten(0, 1)).unflatten(0, steps) for f in raw]
        return frames, self.normalizer.proprio(observation[PROPRIO])
