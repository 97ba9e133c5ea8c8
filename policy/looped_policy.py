"""The policy as robots know it: raw observations in, raw action chunks out, at any depth.

Shapes: B batch, H action horizon, A action dim, K loops, L = K * blocks. This float32 module is
the reference that every exported graph and every back end is compared with.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from loopdit.datasets.spec import PROPRIO, PolicySpec
from loopdit.policy.flow_matching import euler_step, integrate
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


class LoopedPolicy(nn.Module):
    """A normaliser around a looped DiT, for one spec."""

    def __init__(self, spec: PolicySpec, config: LoopedDiTConfig) -> None:
        super().__init__()
        self.spec = spec
        self.config = config
        self.normalizer = Normalizer(spec)
        self.model = LoopedDiT(
            config, len(spec.cameras), spec.proprio.shape[0], spec.action.shape[0]
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

    def losses(
        self,
        observation: Mapping[str, Tensor],
        actions: Tensor,
        valid: Tensor,
        generator: torch.Generator,
        distill: float,
        proprio_noise: float = 0.0,
    ) -> ExitLosses:
        """Training losses of each exit, from raw observations and actions (B, H, A).

        `proprio_noise` (in normalised units) keeps the policy from reading its next action off
        its own pose to a precision that a real arm does not have.
        """
        frames, proprio = self._normalized(observation)
        if proprio_noise:
            noise = torch.randn(proprio.shape, generator=generator, device=proprio.device)
            proprio = proprio + proprio_noise * noise
        chunk = self.normalizer.chunk(actions)
        return self.model.loss(frames, proprio, chunk, valid, generator, distill)

    def _normalized(self, observation: Mapping[str, Tensor]) -> tuple[list[Tensor], Tensor]:
        frames = [self.normalizer.frame(observation[camera.name]) for camera in self.spec.cameras]
        return frames, self.normalizer.proprio(observation[PROPRIO])
