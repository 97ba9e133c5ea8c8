"""The looped diffusion transformer: a few blocks applied K times, from observation to chunk.

Shapes: B batch, O observed steps, N observation tokens (of all cameras and steps), H action
horizon, A action dim, D width, K loops, L = K * blocks. Where O is one, its axis is left out.
Everything here is in normalised units; `looped_policy` owns raw ones.

Attention is one way: observation tokens attend to themselves, action tokens to all. So the
observation depends on neither the noise nor the time, and is encoded once per control step: its
keys and values for each (loop, block) are kept, and a denoising step runs the action tokens alone.

Any K from 1 to `max_loops` is an exit of the same pass: loop k of a deep pass is loop k of a
shallow one. Training supervises all exits at once and distils the deepest into the shallower
(arXiv 2604.09168), because drawing one K a step starves the shallow ones.

With history, each observed step becomes the same tokens by the same encoders, and learns its place
in time. A step that is not seen (history dropout, while training) keeps its place and loses its
content. Before an episode's second step the first observation is repeated, in training as on the
robot, and seen.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from loopdit.command import option
from loopdit.errors import ConfigError
from loopdit.policy.block import HEAD_SIZE, AdaLNBlock
from loopdit.policy.flow_matching import CLEAN, interpolate
from loopdit.policy.image_encoder import TOKENS_PER_CAMERA, KeypointEncoder

_TIME_FREQUENCIES = 64


@dataclass(frozen=True)
class LoopedDiTConfig:
    """The size of the model; what it sees and commands comes from the data's spec."""

    width: int = option(128, "width of every token, a multiple of 32")
    blocks: int = option(1, "blocks in the shared stack")
    max_loops: int = option(4, "how often the stack is applied at most; any fewer can be served")
    action_horizon: int = option(16, "actions in a chunk")
    actions_per_token: int = option(4, "consecutive actions that share a token")
    history: int = option(1, "observations the policy is given, the latest and those before it")

    def __post_init__(self) -> None:
        if self.width < HEAD_SIZE or self.width % HEAD_SIZE:
            below = max(1, self.width // HEAD_SIZE) * HEAD_SIZE
            raise ConfigError(
                f"policy.width={self.width} is not a multiple of {HEAD_SIZE}, the head size. "
                f"Use {below} or {below + HEAD_SIZE}."
            )
        for name in ("blocks", "max_loops", "action_horizon", "history"):
            if getattr(self, name) < 1:
                raise ConfigError(f"policy.{name}={getattr(self, name)} must be at least 1.")
        if self.actions_per_token < 1 or self.action_horizon % self.actions_per_token:
            raise ConfigError(
                f"policy.actions_per_token={self.actions_per_token} does not divide "
                f"policy.action_horizon={self.action_horizon}."
            )


class ExitLosses(NamedTuple):
    """Of each exit, (max_loops,): what training minimises, and the mean squared error to the
    demonstrations, which is comparable between exits and carries no gradient."""

    objective: Tensor
    error: Tensor


class LoopedDiT(nn.Module):
    """An action chunk from an observation and a noisy chunk, at every depth 1..`max_loops`."""

    frequencies: Tensor
    history_position: nn.Parameter | None

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
        # Oldest first. Without history there is none, nor a random number drawn for it.
        self.history_position = (
            nn.Parameter(0.02 * torch.randn(config.history, width)) if config.history > 1 else None
        )
        group = config.actions_per_token
        self.action_in = nn.Linear(group * action_dim, width)
        self.action_position = nn.Parameter(
            0.02 * torch.randn(config.action_horizon // group, width)
        )
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
        self.action_out = nn.Linear(width, group * action_dim)

    def encode(
        self, frames: list[Tensor], proprio: Tensor, loops: int, seen: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Each camera's frames (B, O, 3, S, S), proprio (B, O, P) -> keys, values
        (L, B, heads, N, d). `seen` (B, O) bool: all steps where it is None."""
        tokens = self._observation_tokens(frames, proprio, seen)
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

    def predict(self, sample: Tensor, times: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """The chunk (B, H, A) that `sample` (B, H, A) at `times` (B,) is on the way to.

        K is how many loops `keys` and `values` were encoded for.
        """
        *_, tokens = self._loop(sample, times, keys, values)
        return self._chunk(tokens)

    def loss(
        self,
        frames: list[Tensor],
        proprio: Tensor,
        chunk: Tensor,
        valid: Tensor,
        noise: Tensor,
        times: Tensor,
        distill: float,
        seen: Tensor | None = None,
    ) -> ExitLosses:
        """How far each exit's predicted chunk is from the demonstrated one, normalised units.

        chunk (B, H, A) is the demonstrated one; valid (B, H) marks actions inside the episode;
        `seen` as in `encode`.
        The model sees the point at `times` (B,) of the line from `noise` (B, H, A) to it.
        `distill` in [0, 1) is the share of a shallower exit's target that is the deepest exit's
        own prediction rather than the demonstration: the same optimum with less noise.
        """
        keys, values = self.encode(frames, proprio, self.config.max_loops, seen)
        passes = self._loop(interpolate(noise, chunk, times), times, keys, values)
        exits = [self._chunk(tokens).to(chunk.dtype) for tokens in passes]  # from bf16, if it is
        mixed = torch.lerp(chunk, exits[-1].detach(), distill)
        targets = [mixed] * (len(exits) - 1) + [chunk]
        weight = valid[..., None].to(chunk.dtype)
        count = weight.sum() * chunk.shape[-1]

        def mean_square(difference: Tensor) -> Tensor:
            """(max_loops, B, H, A) -> (max_loops,)."""
            return (weight * difference.square()).sum((1, 2, 3)) / count

        predicted = torch.stack(exits)
        return ExitLosses(
            objective=mean_square(predicted - torch.stack(targets)),
            error=mean_square(predicted.detach() - chunk),
        )

    def _observation_tokens(
        self, frames: list[Tensor], proprio: Tensor, seen: Tensor | None
    ) -> Tensor:
        """See `encode` -> (B, N, D), the tokens of the oldest step first."""
        if self.history_position is None:
            parts = [encoder(frames[i]) for i, encoder in enumerate(self.cameras)]
            parts.append(self.proprio(proprio)[:, None])
            return torch.cat(parts, dim=1) + self.observation_position
        steps = (-1, self.config.history)
        parts = [
            encoder(frames[i].flatten(0, 1)).unflatten(0, steps)
            for i, encoder in enumerate(self.cameras)
        ]
        parts.append(self.proprio(proprio)[:, :, None])
        tokens = torch.cat(parts, dim=2)  # (B, O, N / O, D)
        if seen is not None:
            tokens = tokens * seen[..., None, None].to(tokens.dtype)
        return (tokens + self.observation_position + self.history_position[:, None]).flatten(1, 2)

    def _loop(
        self, sample: Tensor, times: Tensor, keys: Tensor, values: Tensor
    ) -> Iterator[Tensor]:
        """The action tokens after each loop."""
        group = self.config.actions_per_token
        grouped = sample.unflatten(1, (-1, group)).flatten(2)  # (B, H / group, group * A)
        tokens = self.action_in(grouped) + self.action_position
        condition = self._condition(times)
        depth = len(self.blocks)
        for loop in range(len(keys) // depth):
            tokens = tokens + self.loop_embedding[loop]
            for i, block in enumerate(self.blocks, loop * depth):
                tokens, _ = block(tokens, condition, (keys[i], values[i]))
            yield tokens

    def _chunk(self, tokens: Tensor) -> Tensor:
        """Action tokens (B, H / group, D) -> actions (B, H, A)."""
        grouped = self.action_out(self.out_norm(tokens))
        return grouped.unflatten(-1, (self.config.actions_per_token, -1)).flatten(1, 2)

    def _condition(self, times: Tensor) -> Tensor:
        """Times (B,) -> condition (B, 1, D): one for all tokens of a sample."""
        angles = times[:, None] * self.frequencies
        return self.time(torch.cat([angles.sin(), angles.cos()], dim=-1))[:, None]
