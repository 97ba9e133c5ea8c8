"""The video models that can be grafted: a local folder's, the 2B shape, a tiny one.

A folder is in the layout of `from_pretrained`: `transformer/`, `vae/`, `scheduler/`, each with its
`config.json`. Nothing is fetched from anywhere.
"""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from diffusers.schedulers.scheduling_ddim_cogvideox import CogVideoXDDIMScheduler

from loopdit.errors import CheckpointError, ConfigError
from loopdit.policy.graft.latents import load_vae, small_vae

TINY, COGVIDEOX_2B = "tiny", "cogvideox_2b"

# The sizes of CogVideoX-2B are diffusers' defaults. The tiny one has 2 blocks of width 48.
_CONFIGS: dict[str, dict[str, Any]] = {
    COGVIDEOX_2B: {},
    TINY: {
        "num_attention_heads": 3,
        "attention_head_dim": 16,
        "time_embed_dim": 32,
        "text_embed_dim": 24,
        "num_layers": 2,
        "sample_width": 12,
        "sample_height": 8,
        "sample_frames": 9,
        "max_text_seq_length": 8,
    },
}
# As CogVideoX-2B's scheduler/scheduler_config.json has them.
_SCHEDULER: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "snr_shift_scale": 3.0,
}
_DIGESTED = 4096  # numbers of each parameter: a tuned copy differs in nearly all of them


class Backbone(NamedTuple):
    """A video model: what is grafted, what makes its latents, and its noise levels."""

    transformer: CogVideoXTransformer3DModel
    vae: AutoencoderKLCogVideoX
    scheduler: CogVideoXDDIMScheduler


def load_backbone(model: str) -> Backbone:
    """That of a local folder, or the tiny one: random weights, always the same.

    In eval mode, float32, on the CPU. Raises CheckpointError or ConfigError for a folder that lacks
    one of the three, or has them of another kind.
    """
    if model == TINY:
        return Backbone(named_transformer(TINY, seed=0), small_vae(seed=0), named_scheduler())
    if not Path(model).is_dir():
        raise ConfigError(
            f"model={model} is no folder here. Name one with CogVideoX's weights (transformer/, "
            f"vae/, scheduler/), or model={TINY} for a small one with random weights."
        )
    return Backbone(load_transformer(model), load_vae(model), load_scheduler(model))


def named_transformer(name: str, seed: int | None = None) -> CogVideoXTransformer3DModel:
    """A transformer of a named size with random weights, on torch's default device.

    The same weights for the same seed; without one torch's own generator draws them.
    """
    if name not in _CONFIGS:
        raise ConfigError(f"no video transformer is named {name}. Use {' or '.join(_CONFIGS)}.")
    with torch.random.fork_rng(enabled=seed is not None, devices=[]):
        if seed is not None:
            torch.manual_seed(seed)
        return CogVideoXTransformer3DModel(**_CONFIGS[name]).eval()


def named_scheduler() -> CogVideoXDDIMScheduler:
    """The noise schedule of CogVideoX-2B."""
    return CogVideoXDDIMScheduler(**_SCHEDULER)


def load_transformer(folder: str | Path) -> CogVideoXTransformer3DModel:
    """The transformer of a local folder, in eval mode on the CPU.

    Raises CheckpointError for a folder that has none, or one of another kind.
    """
    transformer = _loaded(CogVideoXTransformer3DModel, folder, "transformer")
    if transformer.config["ofs_embed_dim"] or transformer.config["patch_size_t"]:
        raise CheckpointError(
            f"{Path(folder) / 'transformer'} is of CogVideoX 1.5, whose inputs differ. Name a "
            f"folder of CogVideoX 1.0, as CogVideoX-2B."
        )
    if transformer.config["use_rotary_positional_embeddings"]:
        raise CheckpointError(
            f"{Path(folder) / 'transformer'} rotates its queries and keys, as CogVideoX-5B does; "
            f"policies are made of CogVideoX-2B, whose positions are added to its tokens."
        )
    return transformer.eval()


def load_scheduler(folder: str | Path) -> CogVideoXDDIMScheduler:
    """The noise schedule of a local folder. Raises like `load_transformer`."""
    scheduler = _loaded(CogVideoXDDIMScheduler, folder, "scheduler")
    kind = scheduler.config["prediction_type"]
    if kind != "v_prediction":
        raise CheckpointError(
            f"{Path(folder) / 'scheduler'} has prediction_type={kind}; CogVideoX says velocities, "
            f"v_prediction. Copy the folder again."
        )
    return scheduler


def keep_positions(
    transformer: CogVideoXTransformer3DModel, frames: int, height: int, width: int
) -> None:
    """Keep the position embeddings of clips of this size, in latent frames and their pixels.

    diffusers keeps those of the size that a model was made for, and makes those of any other anew
    in each forward pass, on the host: slow, and nothing that a CUDA graph or a trace can hold.
    """
    patches: Any = transformer.patch_embed
    pixels = (frames - 1) * int(patches.temporal_compression_ratio) + 1
    kept = patches._get_positional_embeddings(height, width, pixels)
    patches.sample_frames, patches.sample_height, patches.sample_width = pixels, height, width
    patches.register_buffer("pos_embedding", kept.to(patches.pos_embedding), persistent=False)


def transformer_digest(transformer: CogVideoXTransformer3DModel) -> str:
    """16 hex digits of its sizes and of the beginning of each parameter."""
    found = hashlib.sha256()
    for name, value in sorted(transformer.state_dict().items()):
        found.update(f"{name} {tuple(value.shape)}".encode())
        start = value.detach().flatten()[:_DIGESTED].float().cpu().contiguous()
        found.update(start.numpy().tobytes())
    return found.hexdigest()[:16]


def _loaded(kind: Any, folder: str | Path, part: str) -> Any:
    path = Path(folder) / part
    if not path.is_dir():
        raise CheckpointError(
            f"{folder} has no {part}/. Name a folder with CogVideoX's weights in the layout of "
            f"diffusers: transformer/, vae/, scheduler/."
        )
    try:
        found = kind.load_config(path, local_files_only=True).get("_class_name")
        # Several schedulers run the same noise levels; a pipeline keeps one of them.
        if found != kind.__name__ and part == "transformer":
            raise CheckpointError(f"{path} is a {found}; this is for a {kind.__name__}.")
        options = {"torch_dtype": torch.float32} if part == "transformer" else {}
        return kind.from_pretrained(path, local_files_only=True, **options)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path} cannot be read: {reason:.300}") from error
