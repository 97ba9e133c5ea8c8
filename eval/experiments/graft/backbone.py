"""The video transformer that is grafted: a local folder's, or a small one that was trained here.

A frozen transformer with random weights would say nothing of what freezing costs. So the small one
first learns what CogVideoX has learned: to say the velocity of noised clips, on the training
episodes. It is trained once, the same for every cell and seed, as CogVideoX is, and kept in
LOOPDIT_CACHE.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from loopdit.cache_folder import cache_folder
from loopdit.command import option
from loopdit.errors import ConfigError
from loopdit.eval.experiments.graft.clips import Clips, ClipTensors
from loopdit.eval.experiments.training import StepsConfig, fit
from loopdit.policy.fixed_point.adapters import seeded
from loopdit.policy.graft.backbone import Backbone, load_backbone, named_scheduler
from loopdit.policy.graft.latents import small_vae
from loopdit.whole_file import whole_file

_REVISION = 1  # raised when the same options make another backbone
_SEED = 0
_LATENT_CHANNELS = 16


@dataclass(frozen=True)
class BackboneOptions:
    """Which transformer is grafted."""

    folder: str = option("", "of CogVideoX's weights; empty: a small one of the same class")
    width: int = option(64, "of the small one, a multiple of 16")
    blocks: int = option(3, "of the small one")
    steps: int = option(0, "that the small one learns to denoise clips for, before it is grafted")
    batch: int = option(16, "clips in such a step")
    learning_rate: float = option(1e-3, "in these steps")

    def __post_init__(self) -> None:
        if self.width < 16 or self.width % 16:
            raise ConfigError(f"backbone.width={self.width} must be a multiple of 16.")
        for name in ("blocks", "batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"backbone.{name}={getattr(self, name)} must be at least 1.")
        if self.steps < 0:
            raise ConfigError(f"backbone.steps={self.steps} must not be negative.")


def untrained(options: BackboneOptions) -> Backbone:
    """The folder's model, or the small one with random weights, always the same."""
    if options.folder:
        return load_backbone(options.folder)
    sizes: dict[str, Any] = {
        "num_attention_heads": options.width // 16,
        "attention_head_dim": 16,
        "time_embed_dim": 64,
        "text_embed_dim": 16,
        "num_layers": options.blocks,
        "max_text_seq_length": 1,
    }
    transformer = seeded(lambda: CogVideoXTransformer3DModel(**sizes).eval(), _SEED)
    return Backbone(transformer, small_vae(_SEED), named_scheduler())


def pretrained(backbone: Backbone, options: BackboneOptions, clips: Clips) -> Backbone:
    """The backbone after its steps of denoising; as it is where there are none, or it has a
    folder's weights."""
    if options.folder or not options.steps:
        return backbone
    said = json.dumps(
        [_REVISION, asdict(options), asdict(clips.latents.key), _digests(clips)], sort_keys=True
    )
    name = hashlib.sha256(said.encode()).hexdigest()[:16]
    file = cache_folder("experiments") / f"backbone-{name}.safetensors"
    if not _loaded(backbone.transformer, file):
        _denoise(backbone, options, clips)
        file.parent.mkdir(parents=True, exist_ok=True)
        state = cast(dict[str, Tensor], backbone.transformer.state_dict())
        with whole_file(file) as aside:
            save_file({key: value.contiguous() for key, value in state.items()}, aside)
    return backbone


def _digests(clips: Clips) -> list[str]:
    records = clips.training.store.episodes
    return sorted(records[index].digest for index in clips.training.episodes)


def _loaded(transformer: nn.Module, file: Path) -> bool:
    try:
        transformer.load_state_dict(load_file(file))
    except (OSError, SafetensorError):
        return False
    return True


def _denoise(backbone: Backbone, options: BackboneOptions, clips: Clips) -> None:
    transformer, scheduler = backbone.transformer, backbone.scheduler
    sizes = transformer.config
    levels = int(scheduler.config["num_train_timesteps"])
    sampler = clips.sampler(1, options.batch, _SEED)
    generator = torch.Generator().manual_seed(_SEED)
    text = torch.zeros(options.batch, sizes["max_text_seq_length"], sizes["text_embed_dim"])

    def gradients(step: int) -> Tensor:
        latents = ClipTensors.of(sampler.batch(step), torch.device("cpu")).latents
        noise = torch.randn(latents.shape, generator=generator)
        level: Any = torch.randint(levels, (options.batch,), generator=generator)
        noisy = scheduler.add_noise(latents, noise, level)
        said = transformer(noisy, text, level, return_dict=False)[0]
        loss = (said - scheduler.get_velocity(latents, noise, level)).square().mean()
        loss.backward()
        return loss.detach()

    transformer.requires_grad_(True)
    plan = replace(StepsConfig(), steps=options.steps, learning_rate=options.learning_rate)
    fit(transformer.parameters(), plan, gradients)
