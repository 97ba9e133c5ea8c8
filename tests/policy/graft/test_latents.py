from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from PIL import Image

from loopdit.datasets.formats.convert import convert
from loopdit.datasets.mixing import DataPart
from loopdit.datasets.store import EpisodeStore
from loopdit.datasets.video.clips import ClipConfig
from loopdit.errors import ConfigError, StoreError
from loopdit.policy.graft.latents import (
    LatentEncoder,
    encode_episodes,
    latent_shape,
    load_vae,
    small_vae,
    vae_digest,
)

EXCERPT = Path(__file__).parents[2] / "datasets" / "formats" / "bridge_excerpt"
SMALL = ClipConfig(height=32, width=48)


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    """Two real episodes of 10 steps."""
    path = tmp_path_factory.mktemp("bridge") / "bridge.zarr"
    convert(EXCERPT, path, mapping="bridge")
    return EpisodeStore.open(path)


@pytest.fixture(scope="module")
def encoder() -> LatentEncoder:
    return LatentEncoder(small_vae())


def pictures(frames: int = 9) -> torch.Tensor:
    random = np.random.default_rng(0)
    return torch.from_numpy(random.integers(0, 256, (2, frames, 32, 48, 3), dtype=np.uint8))


def test_latents_are_the_scaled_mean_with_time_before_channels(encoder: LatentEncoder):
    frames = pictures()
    found = encoder(frames)
    pixels = frames.float().div(127.5).sub(1).permute(0, 4, 1, 2, 3)
    with torch.no_grad():
        (posterior,) = encoder.vae.encode(pixels, return_dict=False)
    mean = posterior.parameters[:, :16]  # (B, C, T, h, w); the rest is the logarithm of variances
    assert found.shape == (2, *latent_shape(encoder.vae, SMALL)) == (2, 3, 16, 4, 6)
    assert torch.equal(found, mean.permute(0, 2, 1, 3, 4) * 3.0)
    encoder.vae.register_to_config(scaling_factor=0.7)
    assert torch.equal(encoder(frames), mean.permute(0, 2, 1, 3, 4) * 0.7)
    encoder.vae.register_to_config(scaling_factor=3.0)


def test_an_autoencoder_comes_back_from_its_folder_and_from_a_pipelines(
    tmp_path: Path, encoder: LatentEncoder
):
    encoder.vae.save_pretrained(tmp_path / "pipeline" / "vae")
    for folder in (tmp_path / "pipeline", tmp_path / "pipeline" / "vae"):
        again = load_vae(folder)
        assert vae_digest(again) == vae_digest(encoder.vae)
        assert torch.equal(LatentEncoder(again)(pictures()), encoder(pictures()))
        assert not any(p.requires_grad for p in again.parameters())


def test_a_folder_without_an_autoencoder_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"video\.vae=.*no folder of an AutoencoderKLCogVideoX"):
        load_vae(tmp_path)


def test_the_digest_is_of_what_encodes_and_of_nothing_else():
    vae = small_vae()
    first = vae_digest(vae)
    state = vae.state_dict()
    state["decoder.conv_out.conv.bias"] += 1
    assert vae_digest(vae) == first
    state["encoder.conv_in.conv.bias"][0] += 1e-6
    assert vae_digest(vae) != first
    assert vae_digest(small_vae(seed=1)) != first
    vae = small_vae()
    vae.register_to_config(scaling_factor=1.0)
    assert vae_digest(vae) != first


def test_what_is_kept_of_an_episode_is_what_serving_would_encode(
    bridge: EpisodeStore, encoder: LatentEncoder, tmp_path: Path
):
    parts = [DataPart(bridge, range(2))]
    store = encode_episodes(parts, SMALL, encoder, tmp_path / "latents", batch=4)
    kept = zarr.open_group(tmp_path / "latents", mode="r")[bridge.episodes[1].digest]
    assert isinstance(kept, zarr.Array)
    assert kept.shape == (10, *store.shape)
    frames = bridge.decode(1, "images.image_0")  # (10, 64, 64, 3)
    for step in (3, 9):
        seen = frames[[max(0, step + offset) for offset in range(-8, 1)]]
        # The picture by hand: 64x64 is halved, with 8 black columns on each side.
        clip = np.zeros((9, 32, 48, 3), np.uint8)
        for at, frame in enumerate(seen):
            clip[at, :, 8:40] = np.asarray(Image.fromarray(frame).resize((32, 32), 3))
        wanted = encoder(torch.from_numpy(clip)[None])[0].numpy()
        np.testing.assert_allclose(np.asarray(kept[step]), wanted, rtol=2e-3, atol=1e-3)


def test_encoding_that_was_stopped_goes_on_to_the_same_latents(
    bridge: EpisodeStore, encoder: LatentEncoder, tmp_path: Path
):
    parts = [DataPart(bridge, range(2))]
    whole = encode_episodes(parts, SMALL, encoder, tmp_path / "whole")

    def stop(done: int, total: int) -> None:
        assert total == 2
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_episodes(parts, SMALL, encoder, tmp_path / "stopped", stop)
    told: list[tuple[int, int]] = []
    again = encode_episodes(
        parts, SMALL, encoder, tmp_path / "stopped", lambda done, total: told.append((done, total))
    )
    assert told == [(1, 1)]
    for record in bridge.episodes:
        one, other = (np.fromfile(s.file(record.digest), "<f2") for s in (whole, again))
        np.testing.assert_array_equal(one, other)


def test_processes_share_the_episodes(bridge: EpisodeStore, encoder: LatentEncoder, tmp_path: Path):
    parts = [DataPart(bridge, range(2))]
    clips = ClipConfig(height=32, width=48, every=5)
    store = encode_episodes(parts, clips, encoder, tmp_path / "latents", share=(1, 2))
    assert [index for _, index in store.missing(parts)] == parts[0].in_order()[:1]
    encode_episodes(parts, clips, encoder, tmp_path / "latents", share=(0, 2))
    assert store.missing(parts) == []
    assert np.fromfile(store.file(bridge.episodes[0].digest), "<f2").size == 2 * np.prod(
        store.shape
    )


def test_another_autoencoder_or_resolution_and_short_episodes_are_refused_before_encoding(
    bridge: EpisodeStore, encoder: LatentEncoder, tmp_path: Path
):
    parts = [DataPart(bridge, range(2))]
    folder = tmp_path / "latents"
    with pytest.raises(StoreError, match=r"too few frames for a clip of video\.frames=13: episode"):
        encode_episodes(parts, ClipConfig(frames=13, height=32, width=48), encoder, folder)
    assert not folder.exists()
    clips = ClipConfig(height=32, width=48, every=10)
    encode_episodes(parts, clips, encoder, folder)
    with pytest.raises(StoreError, match=r"made with autoencoder .* name another folder"):
        encode_episodes(parts, clips, LatentEncoder(small_vae(seed=1)), folder)
    with pytest.raises(StoreError, match=r"video\.height 32 .this training's is 64"):
        encode_episodes(parts, ClipConfig(height=64, width=48, every=10), encoder, folder)
