"""The clips that a graft is trained and measured on: a real store's, or those of a made-up film.

Shapes: B clips, T latent frames of C x h x w, H action horizon, A action dim. Episodes are held out
by their content, the same for every seed and cell. Actions by Bridge's rules: the first and last
percentile to -1 and 1, the gripper open or closed and as it is.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from loopdit.datasets.action_filters import ActionFilter, ActionsConfig, action_filter
from loopdit.datasets.episode_filter import EpisodeFilter, choose_episodes, hold_out
from loopdit.datasets.mixing import DataPart
from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.statistics import VectorStatistics, compute_statistics
from loopdit.datasets.store import EpisodeStore
from loopdit.datasets.video.clips import ClipConfig
from loopdit.datasets.video.latent_store import LatentStore
from loopdit.datasets.video.latent_windows import LATENTS, LatentSampler
from loopdit.datasets.windows import Batch
from loopdit.errors import ConfigError
from loopdit.eval.experiments.graft.film import film
from loopdit.policy.graft.latents import LatentEncoder, encode_episodes, vae_digest

GRIPPER = "gripper"


@dataclass(frozen=True)
class ClipTensors:
    """A batch on a device. actions (B, H, A) raw; valid (B, H) those inside their episode."""

    latents: Tensor
    actions: Tensor
    valid: Tensor

    @classmethod
    def of(cls, batch: Batch, device: torch.device) -> "ClipTensors":
        """Of a sampler's batch."""
        arrays = (batch.observations[LATENTS], batch.actions, batch.valid)
        return cls(*(torch.from_numpy(values).to(device) for values in arrays))

    def rows(self, start: int, stop: int) -> "ClipTensors":
        """The clips from `start` to below `stop`."""
        every = (self.latents, self.actions, self.valid)
        return ClipTensors(*(values[start:stop] for values in every))

    def to(self, device: torch.device) -> "ClipTensors":
        """On another device."""
        return ClipTensors(*(v.to(device) for v in (self.latents, self.actions, self.valid)))


@dataclass(frozen=True)
class Clips:
    """What is trained on and what is held out, encoded."""

    spec: PolicySpec
    training: DataPart
    held_out: DataPart
    latents: LatentStore
    video: ClipConfig
    filter: ActionFilter | None
    statistics: dict[str, VectorStatistics]

    def sampler(self, horizon: int, batch: int, seed: int) -> LatentSampler:
        """Of the training clips."""
        return self._sampler(self.training, horizon, batch, seed)

    def measured(self, part: DataPart, horizon: int, most: int) -> ClipTensors:
        """Up to `most` clips of a part, always the same, on the CPU."""
        steps = part.store.episodes
        count = min(most, sum(len(self.video.steps(steps[i].length)) for i in part.episodes))
        batch = self._sampler(part, horizon, count, 0).batch(0)
        return ClipTensors.of(batch, torch.device("cpu"))

    def _sampler(self, part: DataPart, horizon: int, batch: int, seed: int) -> LatentSampler:
        return LatentSampler([part], self.latents, horizon, batch, seed, actions=self.filter)


@contextmanager
def open_clips(
    data: str, video: ClipConfig, encoder: LatentEncoder, held_out: float, device: torch.device
) -> Generator[Clips]:
    """The clips of the store `data`, or of the film where it is empty, encoded beside it where they
    are not yet. Raises StoreError or ConfigError for a store that is missing or has no clip."""
    with TemporaryDirectory() as scratch:
        if data:
            store = EpisodeStore.open(data)
            folder = _beside(store, video, encoder)
        else:
            store = film(Path(scratch, "film.zarr"))
            folder = Path(scratch, "latents")
        yield _encoded(store, video, encoder.to(device), held_out, folder)


def _beside(store: EpisodeStore, video: ClipConfig, encoder: LatentEncoder) -> Path:
    """A folder for each size and autoencoder: experiments use several."""
    if not isinstance(store.path, Path):
        raise ConfigError(f"{store.path} is far away. Copy the store here (policy-data merge).")
    size = f"{video.frames}x{video.height}x{video.width}-{video.fit}-{video.every}"
    return store.path.with_name(f"{store.path.stem}.latents-{size}-{vae_digest(encoder.vae)}")


def _encoded(
    store: EpisodeStore,
    video: ClipConfig,
    encoder: LatentEncoder,
    share: float,
    folder: Path,
) -> Clips:
    long_enough = choose_episodes(store, EpisodeFilter(min_steps=video.frames)).episodes
    training, held = hold_out(store, share, 0, long_enough)
    parts: Sequence[DataPart] = [DataPart(store, training), DataPart(store, held)]
    latents = encode_episodes(parts, video, encoder, folder)
    labels = store.spec.action.labels
    binary = [label for label in labels if label == GRIPPER]
    change = action_filter(store.spec, ActionsConfig(binarise=binary))
    found = compute_statistics([parts[0]], actions=change)
    return Clips(store.spec, parts[0], parts[1], latents, video, change, found)
