"""An action decoder: a head with what it is trained to say, and the way to a chunk.

Shapes: B batch, N video tokens of width D, H action horizon, A action dim, K depths. Normalised
units; the policy around it owns raw ones. Actions are read from the video alone, not from
proprioception: what is compared is what the transformer's features are good for.

Several depths are trained at once: K features, one for each depth of a looped transformer, or one
for all depths of a looped head. The deepest may teach the shallower (`objectives/depth`).
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from loopdit.policy.graft.decoders.config import DIRECT, PAPER, DecoderConfig
from loopdit.policy.graft.decoders.direct_head import DirectHead
from loopdit.policy.graft.decoders.head import Head
from loopdit.policy.graft.decoders.paper_head import PaperHead
from loopdit.policy.graft.decoders.rich_head import RichHead
from loopdit.policy.graft.features import Features
from loopdit.policy.objectives.depth import ExitLosses, objective_losses
from loopdit.policy.objectives.gripper import with_gripper
from loopdit.policy.objectives.objective import Objective, noise_chunk
from loopdit.policy.objectives.registry import make_objective

DEFAULT_STEPS = 10


class ActionDecoder(nn.Module):
    """A head and its objective. `gripper` (A,) bool marks actions that are open or closed, learned
    by cross-entropy; None where all are learned alike."""

    gripper: Tensor | None

    def __init__(
        self, head: nn.Module, config: DecoderConfig, horizon: int, gripper: Tensor | None
    ) -> None:
        super().__init__()
        self.config = config
        self.horizon = horizon
        self.head = head
        self._objective = make_objective(config.learned)
        self.register_buffer("gripper", gripper, persistent=False)

    @property
    def loops(self) -> int:
        """The deepest that the head itself can run."""
        return self._head.loops

    def objective(self, ends: Tensor | None = None) -> Objective:
        """What is learned. `ends` (2, A): closed and open in normalised units (see
        `objectives/gripper`); 0 and 1 where they are not given, which is what a gripper has that is
        left as it is by the normaliser."""
        if self.gripper is None:
            return self._objective
        if ends is None:
            size = len(self.gripper)
            ends = torch.stack([torch.zeros(size), torch.ones(size)]).to(self.gripper.device)
        return with_gripper(self._objective, self.gripper, ends)

    def draw(self, count: int, action_dim: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """The noise (B, H, A) and the times (B,) of a training batch, on the generator's
        device."""
        shape = (count, self.horizon, action_dim)
        noise = torch.randn(shape, generator=generator, device=generator.device)
        return noise, self._objective.levels(count, generator)

    def losses(
        self,
        features: Sequence[Features],
        actions: Tensor,
        valid: Tensor,
        noise: Tensor,
        times: Tensor,
        distill: float = 0.0,
        only: int | None = None,
        ends: Tensor | None = None,
    ) -> ExitLosses:
        """Of each depth (K,), of actions (B, H, A) of which `valid` (B, H) count, for noise and
        times as `draw` makes them; `distill` and `only` as in `objectives/depth`."""
        objective = self.objective(ends)
        noised = noise_chunk(objective, actions, noise, times)
        outputs: list[Tensor] = []
        for each in features:
            outputs += self._head.exits(self._head.read(each), noised.sample, times, self.loops)
        said = torch.stack(outputs).to(actions.dtype)  # from bf16, under autocast
        return objective_losses(objective, said, noised, valid, distill, only)

    def loss(
        self,
        features: Features,
        actions: Tensor,
        valid: Tensor,
        noise: Tensor,
        times: Tensor,
        ends: Tensor | None = None,
    ) -> Tensor:
        """Of one depth, a scalar; see `losses`."""
        return self.losses([features], actions, valid, noise, times, ends=ends).objective.mean()

    def sample(
        self,
        features: Features,
        noise: Tensor,
        steps: int = DEFAULT_STEPS,
        loops: int | None = None,
        ends: Tensor | None = None,
    ) -> Tensor:
        """A chunk (B, H, A) from noise (B, H, A) in so many denoising steps, one where nothing is
        denoised. `loops` of the head: all where it is None."""
        memory = self._head.read(features)
        return self.sample_from(memory, noise, steps, loops, ends)

    def sample_from(
        self,
        memory: tuple[Tensor, ...],
        noise: Tensor,
        steps: int = DEFAULT_STEPS,
        loops: int | None = None,
        ends: Tensor | None = None,
    ) -> Tensor:
        """`sample` of what the head has read already."""
        wanted = self.loops if loops is None else loops

        def predict(sample: Tensor, level: Tensor) -> Tensor:
            return self._head.exits(memory, sample, level, wanted)[-1]

        return self.objective(ends).sample(predict, noise, steps)

    @property
    def _head(self) -> Head:
        return cast(Head, self.head)


def make_decoder(
    config: DecoderConfig,
    hidden: int,
    channels: int,
    horizon: int,
    action_dim: int,
    gripper: Tensor | None = None,
    loops: int = 1,
    robot: Tensor | None = None,
) -> ActionDecoder:
    """A fresh decoder of a transformer of width `hidden` whose latents have `channels`.

    `gripper` (A,) bool is what `objectives/gripper.gripper_mask` finds; it counts where the
    configuration has the gripper by cross-entropy. `loops`: of the rich head's blocks.
    `robot` (N,): whose each video token is, of several; the rich head alone keeps them apart.
    Raises ConfigError for a horizon that the head cannot say.
    """
    config.require_horizon(horizon)
    if config.kind == PAPER:
        return ActionDecoder(PaperHead(channels, action_dim), config, horizon, None)
    mask = gripper if config.learned.gripper == "bce" else None
    head: nn.Module
    if config.kind == DIRECT:
        head = DirectHead(hidden, config.width, horizon, action_dim, config.dropout)
    else:
        sizes = (config.width, config.blocks, horizon, action_dim)
        head = RichHead(hidden, *sizes, loops, robot, config.dropout)
    return ActionDecoder(head, config, horizon, mask)
