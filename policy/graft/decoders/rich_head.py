"""The rich head: one token for each action, attending to every video token, denoised to a chunk.

Shapes: B batch, N video tokens of width D, H action horizon, A action dim, R robots, W the head's
width, d = W / heads. Attention is one way, as in `looped_dit`: the keys and values of the video
tokens are made once for an observation, and each denoising step runs the H action tokens alone,
which attend to the video's and to each other.

The blocks may be looped: looping only what acts, on features that are computed once.

Of several robots (`graft/robots`), each has H tokens of its own share of the action, which see
that robot's video tokens and its own action tokens alone.
"""

from typing import cast

import torch
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import Tensor, nn

from loopdit.errors import ConfigError
from loopdit.policy.block import AdaLNBlock
from loopdit.policy.graft.features import Features

_FREQUENCIES = 128
_TIMES = 1000  # the levels 0 to 1 as the range that diffusers' embedding is made for


class RichHead(nn.Module):
    """See `head.Head`. Any number of loops up to `loops` can be run. `robot` (N,) says whose each
    video token is, None where there is one robot."""

    seen: Tensor | None

    def __init__(
        self,
        hidden: int,
        width: int,
        blocks: int,
        horizon: int,
        action_dim: int,
        loops: int = 1,
        robot: Tensor | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.loops = loops
        self.robots = 1 if robot is None else int(robot.max()) + 1
        if action_dim % self.robots:
            raise ConfigError(
                f"an action of {action_dim} numbers is not shared equally by graft.robots="
                f"{self.robots}. Record the robots' actions one after the other, all alike."
            )
        share = action_dim // self.robots
        self.read_norm = nn.LayerNorm(hidden)
        self.dropout = nn.Dropout(dropout)
        self.keys_values = nn.ModuleList(
            nn.Linear(hidden, 2 * width, bias=False) for _ in range(blocks)
        )
        self.action_in = nn.Linear(share, width)
        self.action_position = nn.Parameter(0.02 * torch.randn(self.robots * horizon, width))
        self.frequencies = Timesteps(_FREQUENCIES, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time = TimestepEmbedding(_FREQUENCIES, width)
        self.loop_embedding = nn.Parameter(torch.zeros(loops, width))
        self.blocks = nn.ModuleList(AdaLNBlock(width) for _ in range(blocks))
        self.out_norm = nn.LayerNorm(width)
        self.action_out = nn.Linear(width, share)
        seen = None if robot is None else _seen(robot, self.robots, horizon)
        self.register_buffer("seen", seen, persistent=False)

    def read(self, features: Features) -> tuple[Tensor, ...]:
        """Of each block the keys, then the values, (B, heads, N, d)."""
        tokens = self.dropout(self.read_norm(features.hidden.float()))
        made: list[Tensor] = []
        for block, layer in zip(self._stack, self.keys_values, strict=True):
            made.extend(layer(tokens).unflatten(-1, (2, block.heads, -1)).permute(2, 0, 3, 1, 4))
        return tuple(made)

    def exits(
        self, memory: tuple[Tensor, ...], sample: Tensor, level: Tensor, loops: int
    ) -> list[Tensor]:
        """See `head.Head.exits`."""
        shares = torch.cat(sample.chunk(self.robots, dim=-1), dim=1)  # (B, R H, A / R)
        tokens = self.action_in(shares) + self.action_position  # (B, R H, W)
        condition = self.time(self.frequencies(level * _TIMES).to(sample.dtype))[:, None]
        modulations = [block.modulate(nn.functional.silu(condition)) for block in self._stack]
        said: list[Tensor] = []
        for loop in range(loops):
            tokens = tokens + self.loop_embedding[loop]
            for i, (block, modulation) in enumerate(zip(self._stack, modulations, strict=True)):
                context = (memory[2 * i], memory[2 * i + 1])
                tokens, _ = block.run(tokens, modulation, context, self.seen)
            output = self.action_out(self.out_norm(tokens))
            said.append(torch.cat(output.chunk(self.robots, dim=1), dim=-1))  # (B, H, A)
        return said

    @property
    def _stack(self) -> list[AdaLNBlock]:
        return cast(list[AdaLNBlock], list(self.blocks))


def _seen(robot: Tensor, robots: int, horizon: int) -> Tensor:
    """Which of the video's and the actions' tokens each action token sees: (R H, N + R H) bool."""
    own = torch.arange(robots).repeat_interleave(horizon)  # of each action token
    return own[:, None] == torch.cat([robot, own])[None]
