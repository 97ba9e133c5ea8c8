"""The looped diffusion transformer: a few blocks applied K times, observation in, velocity out.

Shapes: B batch, C cameras, N observation tokens, H action horizon, A action dim, D width, K loops,
L = K * blocks. Everything here is in normalised units; `looped_policy` owns raw ones.

Attention is one way: observation tokens attend to themselves, action tokens to all. So the
observation depends on neither the noise nor the time, and is encoded once per control step: its
keys and values for each (loop, block) are kept, and a denoising step runs the action tokens alone.

Any K from 1 to `max_loops` is an exit of the same pass: loop k of a deep pass is loop k of a
shallow one. Training supervises all exits at once and distils the deepest into the shallower
(arXiv 2604.09168), because drawing one K a step starves the shallow ones.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from loopdit.command import option
from loopdit.errors import ConfigError
from loopdit.policy.block import HEAD_SIZE, AdaLNBlock
from loopdit.policy.flow_matching import CLEAN, interpolate, sample_times
from loopdit.policy.image_encoder import TOKENS_PER_CAMERA, KeypointEncoder

_TIME_FREQUENCIES = 64


@dataclass(frozen=True)
class LoopedDiTConfig:
    """The size of the model; what it sees and commands comes from the data's spec."""

    width: int = option(160, "width of every token, a multiple of 32")
    blocks: int = option(1, "blocks in the shared stack")
    max_loops: int = option(4, "how often the stack is applied at most; any fewer can be served")
    action_horizon: int = option(16, "actions in a chunk")

    def __post_init__(self) -> None:
        if self.width < HEAD_SIZE or self.width % HEAD_SIZE:
            below = max(1, self.width // HEAD_SIZE) * HEAD_SIZE
            raise ConfigError(
                f"policy.width={self.width} is not a multiple of {HEAD_SIZE}, the head size. "
                f"Use {below} or {below + HEAD_SIZE}."
            )
        for name in ("blocks", "max_loops", "action_horizon"):
            if getattr(self, name) < 1:
                raise ConfigError(f"policy.{name}={getattr(self, name)} must be at least 1.")


class LoopedDiT(nn.Module):
    """Velocity of an action chunk given an observation, at every depth from 1 to `max_loops`."""

    def __init__(
        self, config: LoopedDiTConfig, cameras: int, proprio_dim: int, action_dim: int
    ) -> None:
        super().__init__()
        width = config.width
        self.config = config
        self.cameras = nn.ModuleList(KeypointEncoder(width) for _ in range(cameras))
        self.proprio = nn.Linear(proprio_dim, width)
        tokens = cameras * TOKENS_PER_CAMERA + 1
        self.observation_position = nn.Parameter(0.02 * torch.randn(tokens, width))
        self.action_in = nn.Linear(action_dim, width)
        self.action_position = nn.Parameter(0.02 * torch.randn(config.action_horizon, width))
        self.time = nn.Sequential(
            nn.Linear(2 * _TIME_FREQUENCIES, 2 * width),
            nn.SiLU(),
            nn.Linear(2 * width, width),
            nn.SiLU(),
        )
        exponents = torch.arange(_TIME_FREQUENCIES) / (_TIME_FREQUENCIES - 1)
        self.register_buffer("frequencies", 1000 * torch.exp(-math.log(1e4) * exponents))
        self.loop_embedding = nn.Parameter(torch.zeros(config.max_loops, width))
        self.blocks = nn.ModuleList(AdaLNBlock(width) for _ in range(config.blocks))
        self.out_norm = nn.LayerNorm(width)
        self.action_out = nn.Linear(width, action_dim)

    def encode(
        self, frames: Mapping[int, Tensor] | list[Tensor], proprio: Tensor, loops: int
    ) -> tuple[Tensor, Tensor]:
        """Each camera's frames (B, 3, S, S), proprio (B, P) -> keys, values (L, B, heads, N, d)."""
        parts = [encoder(frames[i]) for i, encoder in enumerate(self.cameras)]
        parts.append(self.proprio(proprio)[:, None])
        tokens = torch.cat(parts, dim=1) + self.observation_position
        condition = self._condition(torch.full((1,), CLEAN, device=tokens.device))
        keys: list[Tensor] = []
        values: list[Tensor] = []
        for loop in range(loops):
            tokens = tokens + self.loop_embedding[loop]
            for block in self.blocks:
                tokens, (key, value) = block(tokens, condition)
                keys.append(key)
                values.append(value)
        return torch.stack(keys), torch.stack(values)

    def velocities(
        self, sample: Tensor, times: Tensor, keys: Tensor, values: Tensor, exits: str = "last"
    ) -> list[Tensor]:
        """Velocity (B, H, A) of `sample` (B, H, A) at `times` (B,), at exit K or at every exit.

        K is how many loops `keys` and `values` were encoded for. exits: "last" | "all".
        """
        tokens = self.action_in(sample) + self.action_position
        condition = self._condition(times)
        loops = len(keys) // len(self.blocks)
        found: list[Tensor] = []
        for loop in range(loops):
            tokens = tokens + self.loop_embedding[loop]
            for i, block in enumerate(self.blocks):
                at = loop * len(self.blocks) + i
                tokens, _ = block(tokens, condition, (keys[at], values[at]))
            if exits == "all" or loop == loops - 1:
                found.append(self.action_out(self.out_norm(tokens)))
        return found

    def loss(
        self,
        frames: list[Tensor],
        proprio: Tensor,
        chunk: Tensor,
        valid: Tensor,
        generator: torch.Generator,
        distill: float,
    ) -> Tensor:
        """Flow-matching loss of each exit, (max_loops,); sum or average them.

        chunk (B, H, A) normalised actions; valid (B, H) marks those inside the episode.
        `distill` in [0, 1) is the share of a shallower exit's target that is the deepest exit's
        own velocity rather than the sample's: the same optimum with less noise.
        """
        noise = torch.randn(chunk.shape, generator=generator)
        times = sample_times(len(chunk), generator)
        keys, values = self.encode(frames, proprio, self.config.max_loops)
        sample = interpolate(noise, chunk, times)
        exits = self.velocities(sample, times, keys, values, exits="all")
        truth = chunk - noise
        mixed = torch.lerp(truth, exits[-1].detach(), distill)
        weight = valid[..., None].to(chunk.dtype)
        scale = weight.sum() * chunk.shape[-1]
        losses = [
            (weight * (predicted - (truth if predicted is exits[-1] else mixed)).square()).sum()
            / scale
            for predicted in exits
        ]
        return torch.stack(losses)

    def _condition(self, times: Tensor) -> Tensor:
        """Times (B,) -> condition (B, 1, D): one for all tokens of a sample."""
        angles = times[:, None] * self.frequencies
        return self.time(torch.cat([angles.sin(), angles.cos()], dim=-1))[:, None]


def masked_mse(predicted: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean over the weighted elements; weight (B, H, 1), the others (B, H, A)."""
    error = functional.mse_loss(predicted, target, reduction="none")
    return (weight * error).sum() / (weight.sum() * predicted.shape[-1])
