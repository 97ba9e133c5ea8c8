"""CogVideoX's autoencoder: frames to the latents that its transformer works on, and episodes' kept.

Shapes: B clips, F frames of H x W pixels, T = (F - 1) / 4 + 1 latent frames of C x H/8 x W/8.

The latents are the mean of what the encoder believes, times the `scaling_factor` that the
transformer was trained with. The mean and not a draw, so that the same frames always are the same
latents: while training, in the cache and while serving.

An autoencoder is known by `vae_digest`, which is of what encoding depends on: the encoder's weights
as they are used, and the configuration. A decoder that was tuned changes nothing.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX
from torch import Tensor, nn

from loopdit.datasets.decoding_ahead import Tell
from loopdit.datasets.mixing import DataPart
from loopdit.datasets.step_vectors import StoredEpisode, describe_episode
from loopdit.datasets.video.clips import ClipConfig, clip_steps, fitted, require_whole_clips
from loopdit.datasets.video.latent_store import LatentKey, LatentStore
from loopdit.errors import ConfigError

_ENCODING = ("encoder.", "quant_conv.")
# 1 / 0.33, the spread of what random weights make of clips of BridgeData V2: the latents then have
# that of a trained autoencoder's.
_SMALL_SCALING = 3.0
_CLIPS_AT_ONCE = 64  # whose frames are in memory: 64 steps at 480x720 are 75 MB


def load_vae(folder: str | Path) -> AutoencoderKLCogVideoX:
    """The autoencoder in a local folder: its own, or that of a whole pipeline. Float32, frozen.

    Raises ConfigError where there is none. Nothing is asked of the network.
    """
    place = Path(folder)
    place = place / "vae" if (place / "vae").is_dir() else place
    try:
        vae, report = cast(
            "tuple[AutoencoderKLCogVideoX, dict[str, Any]]",
            AutoencoderKLCogVideoX.from_pretrained(
                place,
                local_files_only=True,
                torch_dtype=torch.float32,
                use_safetensors=True,
                output_loading_info=True,
            ),
        )
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"video.vae={folder} is no folder of an AutoencoderKLCogVideoX with safetensors "
            f"({reason:.200}). Name one that diffusers saved, such as the folder vae of CogVideoX."
        ) from error
    lacking = [name for name in report["missing_keys"] if name.startswith(_ENCODING)]
    if lacking:
        raise ConfigError(
            f"video.vae={folder} lacks {len(lacking)} weights of the encoder, as {lacking[0]}. "
            f"Name a folder that has all of them."
        )
    return _frozen(vae)


def small_vae(seed: int = 0, width: int = 8) -> AutoencoderKLCogVideoX:
    """One of the same class with random weights: its compression and latent channels, not its
    knowledge. `width` channels in place of 128 to 512."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = AutoencoderKLCogVideoX(
            block_out_channels=cast(Any, (width,) * 4),
            layers_per_block=1,
            norm_num_groups=2,
            scaling_factor=_SMALL_SCALING,
        )
    return _frozen(vae)


def vae_digest(vae: AutoencoderKLCogVideoX) -> str:
    """16 hex digits of what its latents depend on."""
    config = {k: v for k, v in dict(vae.config).items() if not k.startswith("_")}
    found = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    state = cast(dict[str, Tensor], vae.state_dict())
    for name in sorted(name for name in state if name.startswith(_ENCODING)):
        found.update(f"{name} {state[name].dtype}".encode())
        found.update(state[name].detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return found.hexdigest()[:16]


def latent_shape(vae: AutoencoderKLCogVideoX, clips: ClipConfig) -> tuple[int, int, int, int]:
    """(T, C, h, w) of one clip."""
    config: Any = vae.config
    shrink = 2 ** (len(config.block_out_channels) - 1)
    sides = (clips.height // shrink, clips.width // shrink)
    return (clips.latent_frames, config.latent_channels, *sides)


class LatentEncoder(nn.Module):
    """A frozen autoencoder with the transformer's units."""

    def __init__(self, vae: AutoencoderKLCogVideoX) -> None:
        super().__init__()
        self.vae = _frozen(vae)

    def train(self, mode: bool = True) -> "LatentEncoder":
        """Nothing: it is never trained, and must not behave as if it were."""
        del mode
        return super().train(False)

    @torch.no_grad()
    def forward(self, frames: Tensor) -> Tensor:
        """uint8 (B, F, H, W, 3), already of the clip's size -> (B, T, C, h, w) float32."""
        config: Any = self.vae.config
        pixels = frames.permute(0, 4, 1, 2, 3).to(self.vae.dtype) / 127.5 - 1  # (B, 3, F, H, W)
        posterior: Any = self.vae.encode(pixels, return_dict=False)[0]
        return (posterior.mode().float() * config.scaling_factor).transpose(1, 2)


def encode_episodes(
    parts: Iterable[DataPart],
    clips: ClipConfig,
    encoder: LatentEncoder,
    folder: Path,
    tell: Tell = lambda done, total: None,
    batch: int = 1,
    share: tuple[int, int] = (0, 1),
) -> LatentStore:
    """The latents of all clips of these episodes, in `folder`; those that are there stay.

    On the encoder's device, `batch` clips at once. `share` (rank, world): one of `world` shares of
    what is missing. `tell(done, total)` is called after each episode. Stopped at any moment, it
    goes on with the first episode that is not whole.
    Raises StoreError for an episode that is shorter than a clip, before anything is encoded, and
    for a folder with other latents; see `LatentStore`.
    """
    parts = list(parts)
    require_whole_clips(parts, clips.frames)
    camera = clips.chosen_camera(parts[0].store.spec).name
    key = LatentKey.of(clips, camera, vae_digest(encoder.vae))
    store = LatentStore.at(folder, key, latent_shape(encoder.vae, clips))
    rank, world = share
    wanted = store.missing(parts)[rank::world]
    for done, episode in enumerate(wanted, 1):
        latents = _encode_episode(episode, camera, clips, encoder, batch)
        store.write(episode[0].episodes[episode[1]].digest, latents)
        tell(done, len(wanted))
    return store


def _encode_episode(
    episode: StoredEpisode, camera: str, clips: ClipConfig, encoder: LatentEncoder, batch: int
) -> np.ndarray:
    """(clips, T, C, h, w) float32."""
    store, index = episode
    device = next(encoder.parameters()).device
    ends = np.array(clips.steps(store.episodes[index].length))
    found: list[np.ndarray] = []
    for start in range(0, len(ends), _CLIPS_AT_ONCE):
        steps = clip_steps(ends[start : start + _CLIPS_AT_ONCE], clips.frames)  # (n, F)
        needed, places = np.unique(steps, return_inverse=True)
        frames = store.decode(index, camera, needed.tolist())
        if frames.dtype != np.uint8 or frames.ndim != 4:
            raise ConfigError(
                f"{camera} of {describe_episode(*episode)} has shape {frames.shape} and dtype "
                f"{frames.dtype}. A clip is made of (H, W, 3) uint8 pictures."
            )
        pictures = fitted(frames, clips.height, clips.width, clips.fit)
        found.extend(_in_batches(pictures, places.reshape(steps.shape), encoder, batch, device))
    return np.concatenate(found)


def _in_batches(
    pictures: np.ndarray,
    places: np.ndarray,
    encoder: LatentEncoder,
    batch: int,
    device: torch.device,
) -> list[np.ndarray]:
    """Clips of `pictures` at `places` (n, F), so many at once."""
    parts = [places[start : start + batch] for start in range(0, len(places), batch)]
    return [encoder(torch.from_numpy(pictures[part]).to(device)).cpu().numpy() for part in parts]


def _frozen(vae: AutoencoderKLCogVideoX) -> AutoencoderKLCogVideoX:
    vae.requires_grad_(False)
    vae.train(False)
    return vae
