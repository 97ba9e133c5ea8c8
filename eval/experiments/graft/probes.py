"""What can be read of a trained graft: each decoder, taught on features that stay as they are.

Shapes: M clips, N video tokens of width D. The graft has learned with the paper's head; here it is
left alone, its features at the level that is served are computed once, and every decoder learns
from the same ones for the same number of steps. All are measured on the first action of the clips
that are held out, so that a decoder of chunks is compared with one of single actions.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from loopdit.command import option
from loopdit.errors import ConfigError
from loopdit.eval.experiments.graft.clips import GRIPPER, Clips, ClipTensors
from loopdit.eval.experiments.training import StepsConfig, fit
from loopdit.policy.fixed_point.adapters import seeded
from loopdit.policy.graft.decoders.action_errors import ErrorSum
from loopdit.policy.graft.decoders.config import DIRECT, PAPER, RICH, DecoderConfig
from loopdit.policy.graft.decoders.decoder import ActionDecoder, make_decoder
from loopdit.policy.graft.features import Features
from loopdit.policy.graft.graft_policy import GraftPolicy
from loopdit.policy.objectives.gripper import gripper_mask

_PIECE = 16  # clips whose features are computed at once


@dataclass(frozen=True)
class ProbeOptions:
    """How decoders learn from features that do not change."""

    steps: int = option(200, "of each decoder; 0: no probes")
    batch: int = option(32, "clips in a step")
    learning_rate: float = option(1e-3, "of each decoder")
    horizon: int = option(4, "actions in a chunk of the rich and the direct one")
    width: int = option(64, "of those two")
    clips: int = option(256, "training clips whose features are kept")

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ConfigError(f"probes.steps={self.steps} must not be negative.")
        for name in ("batch", "horizon", "clips"):
            if getattr(self, name) < 1:
                raise ConfigError(f"probes.{name}={getattr(self, name)} must be at least 1.")


@torch.no_grad()
def features_of(policy: GraftPolicy, latents: Tensor, autocast: torch.autocast) -> Features:
    """Of latents (M, T, C, h, w) at the level that is served and the deepest K; on the CPU, as
    those of many clips do not fit a GPU."""
    device = policy.served_noise.device
    found: list[Features] = []
    for piece in latents.split(_PIECE):
        own = piece.to(device)
        level = torch.full((len(own),), policy.config.noise_level, device=device)
        task = torch.zeros(len(own), dtype=torch.int64, device=device)
        noisy = policy.noised(own, policy.served_noise.expand_as(own), level)
        with autocast:
            said = policy.graft(noisy, policy.text(task), level)
        found.append(Features(said.hidden.cpu(), said.sample.cpu()))
    return Features(torch.cat([f.hidden for f in found]), torch.cat([f.sample for f in found]))


def probe(
    policy: GraftPolicy,
    clips: Clips,
    held_out: ClipTensors,
    options: ProbeOptions,
    seed: int,
    autocast: torch.autocast,
) -> dict[str, float]:
    """Errors by decoder and unit, `rich_raw` and the like; `constant_raw` and the like of the
    training data's mean action."""
    training = clips.measured(clips.training, options.horizon, options.clips)
    learned_from, measured_on = (
        features_of(policy, found.latents, autocast) for found in (training, held_out)
    )
    device = policy.served_noise.device
    labelled = [label for label in clips.spec.action.labels if GRIPPER in label]
    mask = gripper_mask(clips.spec, labelled) if labelled else None
    found: dict[str, float] = {}
    for kind in (PAPER, DIRECT, RICH):
        decoder = _fresh(policy, kind, options, mask, seed).to(device)
        _learn(decoder, policy, learned_from, training, options, seed)
        errors = ErrorSum(policy.normalizer, clips.statistics["action"].mean, mask)
        _measure(decoder, measured_on, held_out, errors)
        found |= errors.predicted().to_dict(f"{kind}_") | errors.constant().to_dict("constant_")
    return found


def _fresh(
    policy: GraftPolicy,
    kind: str,
    options: ProbeOptions,
    mask: Tensor | None,
    seed: int,
) -> ActionDecoder:
    sizes = policy.graft.transformer.config
    hidden = int(sizes["num_attention_heads"]) * int(sizes["attention_head_dim"])
    channels, actions = int(sizes["out_channels"]), policy.spec.action.shape[-1]
    is_paper = kind == PAPER
    config = DecoderConfig(PAPER) if is_paper else DecoderConfig(kind, options.width)
    horizon = 1 if is_paper else options.horizon
    return seeded(lambda: make_decoder(config, hidden, channels, horizon, actions, mask), seed)


def _learn(
    decoder: ActionDecoder,
    policy: GraftPolicy,
    features: Features,
    clips: ClipTensors,
    options: ProbeOptions,
    seed: int,
) -> None:
    device = policy.served_noise.device
    generator = torch.Generator().manual_seed(seed)
    chunk = policy.normalizer.chunk(clips.actions.to(device))[:, : decoder.horizon]
    valid = clips.valid.to(device)[:, : decoder.horizon]

    def gradients(step: int) -> Tensor:
        del step
        rows = torch.randint(len(chunk), (options.batch,), generator=generator)
        drawn = decoder.draw(options.batch, chunk.shape[-1], generator)
        noise, times = (values.to(device) for values in drawn)
        own = _rows(features, rows, device)
        loss = decoder.loss(own, chunk[rows.to(device)], valid[rows.to(device)], noise, times)
        loss.backward()
        return loss.detach()

    plan = StepsConfig(options.steps, options.batch, options.learning_rate)
    fit(decoder.parameters(), plan, gradients)


@torch.no_grad()
def _measure(
    decoder: ActionDecoder, features: Features, clips: ClipTensors, errors: ErrorSum
) -> None:
    """Of the first action, sampled from no starting noise."""
    device = next(decoder.parameters()).device
    for rows in torch.arange(len(clips.actions)).split(_PIECE):
        actions, valid = clips.actions[rows].to(device), clips.valid[rows].to(device)
        blank = torch.zeros(len(rows), decoder.horizon, actions.shape[-1], device=device)
        chunk = decoder.sample(_rows(features, rows, device), blank)
        errors.add(chunk[:, :1], actions[:, :1], valid[:, :1])


def _rows(features: Features, rows: Tensor, device: torch.device) -> Features:
    return Features(
        features.hidden[rows].float().to(device), features.sample[rows].float().to(device)
    )
