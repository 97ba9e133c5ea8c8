"""A graft policy's checkpoint: that of `policy/checkpoint`, of the kind GRAFT.

Its weights are what was trained and the normaliser: the video model stays where it is, in its
folder, which loading needs and checks. A checkpoint that is `whole` has the video model in it, and
needs nothing else: for a robot.

    graft/, decoder/, text/       what was trained, by `GraftPolicy.trained`
    kept/                         what was not, and is no video model's: the normaliser, frozen text
    base/, vae/                   of a whole checkpoint: the transformer before its graft, the VAE
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from diffusers.schedulers.scheduling_ddim_cogvideox import CogVideoXDDIMScheduler
from torch import Tensor

from loopdit.datasets.spec import PolicySpec
from loopdit.errors import CheckpointError
from loopdit.policy.checkpoint import (
    GRAFT,
    CheckpointContent,
    TrainingState,
    damage_told,
    read_raw,
)
from loopdit.policy.graft.backbone import Backbone, load_backbone, transformer_digest
from loopdit.policy.graft.graft_policy import GraftPolicy
from loopdit.policy.graft.latents import vae_digest
from loopdit.policy.graft.policy_config import GraftPolicyConfig

KEPT, BASE, VAE = "kept/", "base/", "vae/"


@dataclass(frozen=True)
class GraftCheckpoint:
    """A policy in eval mode, float32, on the CPU, and how it came to be."""

    policy: GraftPolicy
    provenance: dict[str, Any]
    weights_sha256: str


def new_policy(spec: PolicySpec, config: GraftPolicyConfig) -> GraftPolicy:
    """A policy to be trained, whose configuration says which video model it is of."""
    backbone = load_backbone(config.model)
    told = replace(
        config,
        transformer_digest=transformer_digest(backbone.transformer),
        vae_digest=vae_digest(backbone.vae),
        backbone=_described(backbone) if config.whole else {},
    )
    return GraftPolicy(spec, told, backbone)


def graft_content(
    policy: GraftPolicy,
    trained: Mapping[str, Tensor],
    provenance: Mapping[str, Any],
    training: TrainingState | None = None,
) -> CheckpointContent:
    """What a checkpoint of `policy` holds, with the values `trained` in place of its own."""
    weights = {name: value.detach() for name, value in trained.items()}
    weights |= {KEPT + name: value for name, value in _kept(policy).items()}
    if policy.config.whole:
        weights |= {BASE + name: value for name, value in policy.graft.base().items()}
        weights |= {VAE + name: value for name, value in policy.encoder.vae.state_dict().items()}
    return CheckpointContent(policy.spec, policy.config, weights, provenance, training, GRAFT)


def load_graft_checkpoint(folder: str | Path) -> GraftCheckpoint:
    """Read a graft policy. Raises CheckpointError or ConfigError: missing, damaged, of another
    kind, or the folder of its video model is gone or holds another one."""
    raw = read_raw(folder, GRAFT)
    with damage_told(folder):
        config = GraftPolicyConfig.from_dict(raw.policy)
        policy = GraftPolicy(raw.spec, config, _backbone(folder, config, raw.weights))
        put_weights(policy, raw.weights)
    return GraftCheckpoint(policy.eval().requires_grad_(False), raw.provenance, raw.weights_sha256)


def put_weights(policy: GraftPolicy, weights: Mapping[str, Tensor]) -> None:
    """Put a checkpoint's weights into a policy of its configuration, on the policy's device.

    Raises KeyError or RuntimeError for those of another."""
    with torch.no_grad():
        for name, parameter in policy.trained().items():
            parameter.copy_(weights[name])
        normalizer = {
            name.removeprefix(f"{KEPT}normalizer."): value
            for name, value in weights.items()
            if name.startswith(f"{KEPT}normalizer.")
        }
        policy.normalizer.load_state_dict(normalizer)
        for name, value in _kept(policy).items():
            if not name.startswith("normalizer."):
                value.copy_(weights[KEPT + name])


def _kept(policy: GraftPolicy) -> dict[str, Tensor]:
    found = {f"normalizer.{n}": v for n, v in policy.normalizer.state_dict().items()}
    if "text/tokens" not in policy.trained():
        found["text.tokens"] = policy.text.tokens.detach()
    return found


def _backbone(
    folder: str | Path, config: GraftPolicyConfig, weights: Mapping[str, Tensor]
) -> Backbone:
    if config.whole:
        return _backbone_within(config.backbone, weights)
    backbone = load_backbone(config.model)
    for what, made, wanted in (
        ("transformer", transformer_digest(backbone.transformer), config.transformer_digest),
        ("autoencoder", vae_digest(backbone.vae), config.vae_digest),
    ):
        if made != wanted:
            raise CheckpointError(
                f"{folder} was trained on another {what} than model={config.model} has now "
                f"({wanted}, found {made}). Put that one back, or train again; whole=true keeps "
                f"the video model in the checkpoint."
            )
    return backbone


def _described(backbone: Backbone) -> dict[str, Any]:
    """The configurations of its parts, plain JSON types."""
    return {
        part: {k: v for k, v in dict(getattr(backbone, part).config).items() if k[0] != "_"}
        for part in Backbone._fields
    }


def _backbone_within(described: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Backbone:
    """The video model of a whole checkpoint."""
    transformer = CogVideoXTransformer3DModel(**described["transformer"])
    vae = AutoencoderKLCogVideoX(**described["vae"])
    for prefix, module in ((BASE, transformer), (VAE, vae)):
        own = {n.removeprefix(prefix): v for n, v in weights.items() if n.startswith(prefix)}
        module.load_state_dict(own)
    scheduler = CogVideoXDDIMScheduler(**described["scheduler"])
    return Backbone(transformer.eval(), vae, scheduler)
