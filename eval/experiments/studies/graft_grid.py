"""A video transformer grafted, trained on a robot's clips with the paper's head: experiment 26.

Two losses at once: the velocity of the noised clip, and the next action by the paper's head, both
from one pass at a level drawn as CogVideoX was trained. K grows as training goes on, in equal
stages (the paper's curriculum: K = min(1 + step // 1000, loops) in 5,000 steps). Episodes are held
out; all cells and seeds are measured on the same clips under the same noise.

`action_loss` is the head's mean squared error in normalised units, `action_raw` in raw ones, and
`diffusion_loss` the velocity's, all at K = loops; beside them `constant_action_loss`,
`constant_action_raw` of the training data's mean action and `zero_diffusion_loss` of saying zero.
What the graft's features hold is asked of all decoders alike by `probes`: `paper_`, `direct_` and
`rich_` with raw, normalised, arm_raw, arm_normalised and gripper_wrong, and `constant_`.

The task is not told: the text is zero. With data= empty it is a made-up film.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from loopdit.command import option, require_choice
from loopdit.datasets.video.clips import ClipConfig
from loopdit.errors import ConfigError
from loopdit.eval.experiments.graft.backbone import BackboneOptions, pretrained, untrained
from loopdit.eval.experiments.graft.clips import GRIPPER, Clips, ClipTensors, open_clips
from loopdit.eval.experiments.graft.probes import ProbeOptions, probe
from loopdit.eval.experiments.studies.study import Outcome
from loopdit.eval.experiments.training import StepsConfig, fit
from loopdit.policy.fixed_point.adapters import seeded
from loopdit.policy.graft.backbone import TINY, Backbone
from loopdit.policy.graft.config import GraftConfig
from loopdit.policy.graft.decoders.action_errors import ErrorSum
from loopdit.policy.graft.decoders.config import PAPER, DecoderConfig
from loopdit.policy.graft.features import Features
from loopdit.policy.graft.graft_policy import GraftPolicy
from loopdit.policy.graft.latents import LatentEncoder
from loopdit.policy.graft.looped_block import LOOP, NESTED, NO_CHECKPOINT
from loopdit.policy.graft.losses import GraftDraws, LossConfig, draw, graft_losses, velocity
from loopdit.policy.graft.policy_config import LEARNED, GraftPolicyConfig
from loopdit.policy.normalizer import QUANTILE
from loopdit.policy.objectives.depth import CURRICULUM, DepthConfig, plan_depth

REVISION = 1

_DRAWS_SEED = 77
_PIECE = 16  # clips measured at once
_UNTOLD = "untold"


@dataclass(frozen=True)
class Options(StepsConfig):
    """What is grafted how, and trained on what."""

    data: str = option("", "episode store; empty: a made-up film")
    held_out: float = option(0.2, "share of the episodes to measure on")
    most_held_out: int = option(256, "clips that are measured on, at most")
    backbone: BackboneOptions = option(BackboneOptions(), "")
    video: ClipConfig = option(ClipConfig(), "")
    graft: GraftConfig = option(GraftConfig(), "")
    action_weight: float = option(1.0, "of the actions' loss beside the velocity's")
    noise_level: int = option(100, "at which features are read by the probes")
    stages: int = option(5, "equal parts of the training; K grows by one from one to the next")
    probes: ProbeOptions = option(ProbeOptions(), "")
    precision: str = option("fp32", "fp32 or bf16 (autocast, of a GPU)")
    checkpoint: str = option(NO_CHECKPOINT, f"{NO_CHECKPOINT}, {LOOP} or {NESTED}")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("precision", self.precision, ("fp32", "bf16"))
        require_choice("checkpoint", self.checkpoint, (NO_CHECKPOINT, LOOP, NESTED))
        if not 0 < self.held_out < 1:
            raise ConfigError(f"held_out={self.held_out} must be between 0 and 1.")
        if self.stages < self.graft.loops:
            raise ConfigError(
                f"stages={self.stages} end before loops={self.graft.loops}. Use more stages."
            )
        if self.steps < self.stages and self.graft.loops > 1:
            raise ConfigError(f"steps={self.steps} are fewer than stages={self.stages}.")


def run(options: Options, seed: int, device: torch.device) -> Outcome:
    """Train and measure."""
    backbone = untrained(options.backbone)
    encoder = LatentEncoder(backbone.vae)
    with open_clips(options.data, options.video, encoder, options.held_out, device) as clips:
        backbone = pretrained(backbone, options.backbone, clips)
        policy = _fresh(options, clips, backbone, seed).to(device)
        held_out = clips.measured(clips.held_out, options.probes.horizon, options.most_held_out)
        curve: dict[str, list[float]] = {"step": [], "action_loss": [], "diffusion_loss": []}

        def look(steps: int) -> None:
            errors = _errors(policy, held_out, options)
            for name, value in {"step": float(steps), **errors}.items():
                if name in curve:
                    curve[name].append(value)

        _train(options, policy, clips, seed, look)
        metrics = _errors(policy, held_out, options) | _constants(policy, clips, held_out)
        if options.probes.steps:
            metrics |= probe(
                policy.eval(), clips, held_out, options.probes, seed, _cast(options, device)
            )
        parameters = sum(value.numel() for value in _learned(policy))
    return Outcome(metrics, curve, parameters)


def _fresh(options: Options, clips: Clips, backbone: Backbone, seed: int) -> GraftPolicy:
    config = GraftPolicyConfig(
        model=options.backbone.folder or TINY,
        graft=options.graft,
        video=options.video,
        decoder=DecoderConfig(kind=PAPER),
        action_horizon=1,
        noise_level=options.noise_level,
        text=LEARNED,
        instructions=[_UNTOLD],
    )
    policy = seeded(lambda: GraftPolicy(clips.spec, config, backbone), seed)
    nn.init.zeros_(policy.text.tokens.requires_grad_(False))
    kept = [i for i, label in enumerate(clips.spec.action.labels) if label == GRIPPER]
    policy.normalizer.fit(clips.statistics, {"action": QUANTILE}, {"action": kept})
    return policy


def _train(
    options: Options,
    policy: GraftPolicy,
    clips: Clips,
    seed: int,
    look: Callable[[int], object],
) -> None:
    device = policy.served_noise.device
    sampler = clips.sampler(1, options.batch, seed)
    generator = torch.Generator().manual_seed(seed)
    config = LossConfig(actions=options.action_weight, checkpointing=options.checkpoint)
    curriculum = DepthConfig(CURRICULUM, stage=max(1, options.steps // options.stages))
    policy.train()

    def gradients(step: int) -> Tensor:
        batch = ClipTensors.of(sampler.batch(step), device)
        draws = _on(draw(policy, options.batch, generator), device)
        plan = plan_depth(curriculum, options.graft.depths, step, 0.0)
        actions, valid = batch.actions[:, :1], batch.valid[:, :1]
        with _cast(options, device):
            found = graft_losses(
                policy, batch.latents, _untold(batch), actions, valid, draws, config, plan
            )
        found.objective.backward()
        return found.objective.detach()

    fit(_learned(policy), options, gradients, look)


def _learned(policy: GraftPolicy) -> list[nn.Parameter]:
    """What is trained: without the text, which stays zero."""
    return [value for value in policy.trained().values() if value.requires_grad]


@torch.no_grad()
def _errors(policy: GraftPolicy, held_out: ClipTensors, options: Options) -> dict[str, float]:
    """Of the held-out clips at K = loops, at levels drawn as in training, the same each time."""
    was_training = policy.training
    policy.eval()
    generator = torch.Generator().manual_seed(_DRAWS_SEED)
    device = policy.served_noise.device
    actions = ErrorSum(policy.normalizer, [0.0] * held_out.actions.shape[-1], None)
    video = zero = 0.0
    for start in range(0, len(held_out.latents), _PIECE):
        batch = held_out.rows(start, start + _PIECE).to(device)
        draws = _on(draw(policy, len(batch.latents), generator), device)
        noisy = policy.noised(batch.latents, draws.video, draws.level)
        with _cast(options, device):
            said = policy.graft(noisy, policy.text(_untold(batch)), draws.level)
        target = velocity(policy, batch.latents, draws.video, draws.level)
        video += float((said.sample - target).square().mean((1, 2, 3, 4)).sum())
        zero += float(target.square().mean((1, 2, 3, 4)).sum())
        chunk = policy.decoder.sample(Features(said.hidden, said.sample.float()), draws.noise)
        actions.add(chunk, batch.actions[:, :1], batch.valid[:, :1])
    policy.train(was_training)
    found, count = actions.predicted(), len(held_out.latents)
    return {
        "action_loss": found.normalised,
        "action_raw": found.raw,
        "diffusion_loss": video / count,
        "zero_diffusion_loss": zero / count,
    }


def _constants(policy: GraftPolicy, clips: Clips, held_out: ClipTensors) -> dict[str, float]:
    """Of commanding the mean of the training episodes' actions."""
    errors = ErrorSum(policy.normalizer, clips.statistics["action"].mean, None)
    batch = held_out.to(policy.served_noise.device)
    chunk = policy.normalizer.chunk(batch.actions[:, :1])
    errors.add(chunk, batch.actions[:, :1], batch.valid[:, :1])
    found = errors.constant()
    return {"constant_action_loss": found.normalised, "constant_action_raw": found.raw}


def _cast(options: Options, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, options.precision == "bf16")


def _untold(batch: ClipTensors) -> Tensor:
    return torch.zeros(len(batch.latents), dtype=torch.int64, device=batch.latents.device)


def _on(draws: GraftDraws, device: torch.device) -> GraftDraws:
    return GraftDraws(*(values.to(device) for values in draws))
