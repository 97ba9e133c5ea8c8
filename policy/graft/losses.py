"""What a graft policy learns from a batch: the video's velocity, and the actions, at some depths.

Shapes: B windows, T latent frames of C x h x w, H action horizon, A action dim, K the depths that a
step runs.

A looped transformer of K loops is not the beginning of one of K + 1: each block's output is the
next one's input. So each depth is a pass of its own, where `LoopedDiT` has exits of one pass, and a
step runs those that its plan names (`objectives/depth`): all of them, one and the deepest, which
teaches it, or the curriculum's.

The velocity is what CogVideoX was trained to say (v-prediction, arXiv 2202.00512), by the model's
own noise levels: v = sqrt(a) noise - sqrt(1 - a) latents. Predicting zero costs about 1.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from loopdit.policy.graft.config import BACKBONE
from loopdit.policy.graft.features import Features
from loopdit.policy.graft.graft import GraftOutput
from loopdit.policy.graft.graft_policy import GraftPolicy
from loopdit.policy.objectives.depth import DepthPlan, exit_objectives

ALL_LEVELS, SERVED = "all", "served"


class GraftDraws(NamedTuple):
    """What chance decides about a batch: the video's noise (B, T, C, h, w) and level (B,) int64,
    the decoder's noise (B, H, A) and times (B,)."""

    video: Tensor
    level: Tensor
    noise: Tensor
    times: Tensor

    def rows(self, start: int, stop: int) -> "GraftDraws":
        """Those of the windows from `start` to below `stop`."""
        return GraftDraws(*(values[start:stop] for values in self))


class GraftLosses(NamedTuple):
    """`actions` and `others`: scalars to minimise, a mean over the actions that count and what is a
    mean over windows. `error` (K,): of actions, at each of `depths` (K). `video` (K,): of the
    velocity, none where it has no weight."""

    actions: Tensor
    others: Tensor
    error: Tensor
    video: Tensor
    depths: Sequence[int]

    @property
    def objective(self) -> Tensor:
        """What one batch in one piece is to minimise."""
        return self.actions + self.others

    def error_of(self, depths: Sequence[int]) -> Tensor:
        """(of each of `depths`,): one that was not run counts as the next deeper that was, and
        beyond the deepest as that."""
        deeper = [next((i for i, k in enumerate(self.depths) if k >= d), -1) for d in depths]
        return self.error[deeper]


class LossConfig(NamedTuple):
    """What counts. `levels`: actions are learned at all noise levels, from the pass that the
    video's loss runs (the paper's way), or at the one that is served, in a pass of its own."""

    actions: float = 1.0
    video: float = 1.0
    levels: str = ALL_LEVELS
    checkpointing: str = "none"


def draw(policy: GraftPolicy, count: int, generator: torch.Generator) -> GraftDraws:
    """For `count` windows, on the generator's device."""
    device = generator.device
    shape = (count, *policy.latent_shape)
    levels = int(policy.scheduler.config["num_train_timesteps"])
    video = torch.randn(shape, generator=generator, device=device)
    level = torch.randint(0, levels, (count,), generator=generator, device=device)
    actions = policy.spec.action.shape[-1]
    noise, times = policy.decoder.draw(count, actions, generator)
    return GraftDraws(video, level, noise, times)


def graft_losses(
    policy: GraftPolicy,
    latents: Tensor,
    task: Tensor,
    actions: Tensor,
    valid: Tensor,
    draws: GraftDraws,
    config: LossConfig,
    plan: DepthPlan | None = None,
) -> GraftLosses:
    """Of latents (B, T, C, h, w), numbers of tasks (B,), raw actions (B, H, A), of which `valid`
    (B, H) count. `plan`: of both losses; where it is None all depths, none taught by another."""
    plan = plan or DepthPlan(policy.max_loops)
    depths = planned_depths(policy, plan)
    text = policy.text(task)
    passes: list[GraftOutput] = []
    video = latents.new_zeros(0)
    if config.video or config.levels == ALL_LEVELS:
        passes = _passes(policy, latents, text, draws.video, draws.level, depths, config)
        if config.video:
            video = video_losses(policy, passes, latents, draws, plan.distill)
    if config.levels == SERVED:
        level = torch.full_like(draws.level, policy.config.noise_level)
        passes = _passes(policy, latents, text, draws.video, level, depths, config)
    features = [Features(said.hidden, said.sample) for said in passes]
    found = policy.decoder.losses(
        features,
        policy.normalizer.chunk(actions),
        valid,
        draws.noise,
        draws.times,
        plan.distill,
        None if policy.config.graft.looped == BACKBONE else plan.only,
        policy.ends,
    )
    ponder = torch.stack([said.ponder for said in passes]).mean()
    others = ponder + config.video * video.mean() if config.video else ponder
    learned = config.actions * found.objective.mean()
    told = _told(policy, depths, found.error)
    return GraftLosses(learned, others, found.error, video.detach(), told)


def video_losses(
    policy: GraftPolicy,
    passes: Sequence[GraftOutput],
    latents: Tensor,
    draws: GraftDraws,
    distill: float,
) -> Tensor:
    """(K,): how far what each pass says is from the velocity."""
    target = velocity(policy, latents, draws.video, draws.level).flatten(2)  # (B, T, C h w)
    said = torch.stack([one.sample.to(target.dtype).flatten(2) for one in passes])
    return exit_objectives(said, target, torch.ones_like(target[..., 0]), distill)


def velocity(policy: GraftPolicy, latents: Tensor, noise: Tensor, level: Tensor) -> Tensor:
    """What the transformer should say of latents with this noise at levels (B,)."""
    return policy.scheduler.get_velocity(latents, noise, level)  # pyright: ignore[reportArgumentType] - its annotation says IntTensor


def planned_depths(policy: GraftPolicy, plan: DepthPlan) -> list[int]:
    """Each K of the backbone that a step runs, the deepest last; 1 where another part is looped."""
    if policy.config.graft.looped != BACKBONE:
        return [1]
    if plan.only is None:
        return list(policy.depths)
    return sorted({plan.only, plan.loops})


def _passes(
    policy: GraftPolicy,
    latents: Tensor,
    text: Tensor,
    noise: Tensor,
    level: Tensor,
    depths: Sequence[int],
    config: LossConfig,
) -> list[GraftOutput]:
    noisy = policy.noised(latents, noise, level)
    return [
        policy.graft(noisy, text, level, loops, checkpointing=config.checkpointing)
        for loops in depths
    ]


def _told(policy: GraftPolicy, depths: list[int], error: Tensor) -> list[int]:
    """The K of each error: of a looped decoder all, which one pass of the backbone feeds."""
    return depths if len(error) == len(depths) else list(policy.depths)
