"""The paper's v3 for MuJoCo: a looped transformer over the bodies, joints and motors of a robot.

Tokens T = N + J + A: one for each body of the kinematic tree (what it is: F features), for each
joint (what is observed of it: S slots, and which of them there are), for each motor (its noisy
action chunk, H numbers, and after the loops its predicted one). B batch, D width, heads.
The same weights serve every body: nothing here has the shape of one. Joints are told apart by a
learned number of their place in the tree's order, bodies of one policy by their index; body tokens
have neither, so the order in which a graph lists them changes nothing.

Attention gets a bias by the distance of two tokens' bodies in the tree, of 0 to FARTHEST, for each
head, shared by blocks and loops (after Graphormer, arXiv 2106.05234). It starts at 0.

`bodies=False` leaves out what describes the body, tokens and bias: the other arm of experiment 22.
Everything is in normalised units. The condition of each block is the noise level, as in v1.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from loopdit.command import option
from loopdit.errors import ConfigError
from loopdit.policy.block import AdaLNBlock
from loopdit.policy.loops.config import LoopConfig
from loopdit.policy.loops.looped_stack import LoopedStack, LoopOutput
from loopdit.policy.morphology.embodiment import Embodiment

FARTHEST = 8
# Of envs.morphology, which this knows by their numbers alone.
FEATURES, SLOTS = 23, 43
_MOST_JOINTS = 24
_TIME_FREQUENCIES = 64


@dataclass(frozen=True)
class MorphologyConfig:
    """The size of the model, and whether it is told the body."""

    width: int = option(128, "width of every token")
    heads: int = option(4, "attention heads")
    blocks: int = option(3, "blocks, each looped as `loops` says")
    horizon: int = option(8, "actions in a chunk")
    bodies: bool = option(True, "tokens that describe the bodies, and attention biased by the tree")
    distance_bias: bool = option(True, "with `bodies`: the bias; false leaves the tokens alone")
    robots: int = option(8, "how many different robots one policy can tell apart")
    loops: LoopConfig = option(LoopConfig(), "see policy.loops")

    def __post_init__(self) -> None:
        for name in ("width", "heads", "blocks", "horizon", "robots"):
            if getattr(self, name) < 1:
                raise ConfigError(f"morphology.{name}={getattr(self, name)} must be at least 1.")
        if self.width % self.heads:
            raise ConfigError(
                f"morphology.width={self.width} is not a multiple of morphology.heads={self.heads}."
            )


class MorphologyDiT(nn.Module):
    """A chunk for every motor of a body, from its observation and a noisy chunk."""

    frequencies: Tensor
    distance_bias: nn.Parameter | None

    def __init__(self, config: MorphologyConfig) -> None:
        super().__init__()
        width = config.width
        self.config = config
        self.body_in = _reader(FEATURES, width) if config.bodies else None
        self.joint_in = _reader(2 * SLOTS, width)
        self.motor_in = _reader(config.horizon, width)
        self.kind = nn.Parameter(0.02 * torch.randn(3, width))  # body, joint, motor
        self.joint_place = nn.Parameter(0.02 * torch.randn(_MOST_JOINTS, width))
        self.robot = nn.Parameter(0.02 * torch.randn(config.robots, width))
        biased = config.bodies and config.distance_bias
        self.distance_bias = (
            nn.Parameter(torch.zeros(config.heads, FARTHEST + 1)) if biased else None
        )
        self.time = nn.Sequential(
            nn.Linear(2 * _TIME_FREQUENCIES, 4 * width), nn.SiLU(), nn.Linear(4 * width, 2 * width)
        )
        exponents = torch.arange(_TIME_FREQUENCIES) / (_TIME_FREQUENCIES - 1)
        self.register_buffer("frequencies", 1000 * torch.exp(-math.log(1e4) * exponents))
        self.stack = LoopedStack(
            lambda: AdaLNBlock(width, heads=config.heads, condition_width=2 * width),
            config.blocks,
            width,
            config.loops,
        )
        self.out_norm = nn.LayerNorm(width, elementwise_affine=False)
        self.out_modulation = nn.Linear(2 * width, 2 * width)
        nn.init.zeros_(self.out_modulation.weight)
        nn.init.zeros_(self.out_modulation.bias)
        self.motor_out = nn.Linear(width, config.horizon)

    def forward(
        self,
        body: Embodiment,
        observation: Tensor,
        sample: Tensor,
        level: Tensor,
        loops: int | None = None,
    ) -> tuple[Tensor, LoopOutput]:
        """observation (B, P), sample (B, H, A), level (B,) in [0, 1] -> output (B, H, A)."""
        condition = self._embedded(level)
        tokens = self.tokens(body, observation, sample)
        looped = self.stack(tokens, condition, loops, bias=self.bias(body))
        shift, scale = self.out_modulation(condition).chunk(2, -1)
        motors = self.out_norm(looped.tokens[:, -body.motors :]) * (1 + scale) + shift
        return self.motor_out(motors).transpose(1, 2), looped

    def tokens(self, body: Embodiment, observation: Tensor, sample: Tensor) -> Tensor:
        """observation (B, P), sample (B, H, A) -> (B, T, D): bodies, joints, motors."""
        self._require(body, observation)
        batch, joints = len(observation), len(body.joint_body)
        place = body.observed_joint * SLOTS + body.observed_slot
        slots = observation.new_zeros(batch, joints * SLOTS)
        slots[:, place] = observation
        there = observation.new_zeros(joints * SLOTS)
        there[place] = 1
        seen = torch.stack([slots, there.expand_as(slots)], -1).view(batch, joints, 2 * SLOTS)
        parts = [
            self.joint_in(seen) + self.kind[1] + self.joint_place[:joints],
            self.motor_in(sample.transpose(1, 2))
            + self.kind[2]
            + self.joint_place[body.motor_joint],
        ]
        if self.body_in is not None:
            described = self.body_in(body.features) + self.kind[0]
            parts.insert(0, described.expand(batch, -1, -1))
        return torch.cat(parts, dim=1) + self.robot[body.index]

    def bias(self, body: Embodiment) -> Tensor | None:
        """(heads, T, T), added to the attention's logits."""
        if self.distance_bias is None:
            return None
        own = torch.arange(len(body.features), device=body.distances.device)
        site = torch.cat([own, body.joint_body, body.motor_body])  # (T,)
        return self.distance_bias[:, body.distances[site][:, site].clamp_max(FARTHEST)]

    def _embedded(self, level: Tensor) -> Tensor:
        """(B,) -> (B, 1, 2 D)."""
        angles = level[:, None] * self.frequencies
        return self.time(torch.cat([angles.sin(), angles.cos()], dim=-1))[:, None]

    def _require(self, body: Embodiment, observation: Tensor) -> None:
        limits = (
            (
                "features a body",
                body.features.shape[1],
                FEATURES,
                body.features.shape[1] == FEATURES,
            ),
            ("joints", len(body.joint_body), _MOST_JOINTS, len(body.joint_body) <= _MOST_JOINTS),
            ("its index", body.index, self.config.robots - 1, body.index < self.config.robots),
            (
                "observed numbers",
                observation.shape[-1],
                len(body.mean),
                observation.shape[-1] == len(body.mean),
            ),
        )
        for what, found, limit, fits in limits:
            if not fits:
                raise ConfigError(
                    f"the body {body.name!r} has {what}: {found}; here it is {limit}."
                )


def _reader(numbers: int, width: int) -> nn.Sequential:
    """What a token is made of -> the token, by one hidden layer."""
    return nn.Sequential(nn.Linear(numbers, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))
