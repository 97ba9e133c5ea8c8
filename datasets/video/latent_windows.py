"""Batches of training windows whose video is latents: `windows` for policies that see video.

Shapes: B windows, F frames of a clip, T latent frames of C x h x w, H action horizon, A action dim.

Windows are where the clips end that the latents are of, and are otherwise those of `WindowSampler`:
they never reach into another episode, each comes once in an epoch, and which of them a batch holds
follows from (data, seed, step) alone.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from loopdit.datasets.action_filters import ActionFilter
from loopdit.datasets.batch_buffers import BatchBuffers
from loopdit.datasets.decoded_cache import DecodedCache
from loopdit.datasets.decoding_ahead import Tell
from loopdit.datasets.mapped_frames import EpisodeFiles, MapBudget
from loopdit.datasets.mixing import DataPart, order_of
from loopdit.datasets.step_vectors import describe_episode, load_vectors
from loopdit.datasets.store import ACTION
from loopdit.datasets.video.clips import clip_ends, require_whole_clips
from loopdit.datasets.video.latent_store import DTYPE, LatentStore
from loopdit.datasets.windows import Batch
from loopdit.errors import ConfigError, StoreError

LATENTS = "latents"
_RAM_BYTES = 1 << 30  # of vectors; beyond it they are mapped


class LatentSampler:
    """`WindowSampler`'s face, with LATENTS (B, T, C, h, w) float32 in place of the frames.

    Raises StoreError where an episode has no latents, or is shorter than a clip. `observed` of a
    batch is (B, F): false where a frame stands for one before the start.
    """

    def __init__(
        self,
        parts: Sequence[DataPart],
        latents: LatentStore,
        horizon: int,
        batch_size: int,
        seed: int,
        cache: DecodedCache | None = None,
        actions: ActionFilter | None = None,
    ) -> None:
        frames, self._every = latents.key.frames, latents.key.every
        require_whole_clips(parts, frames)
        _require_latents(parts, latents)
        self.horizon = horizon
        self.history = frames
        self.batch_size = batch_size
        self.seed = seed
        self.notes: tuple[str, ...] = ()
        spec = parts[0].store.spec
        self.spec = replace(
            spec, observations=tuple(t for t in spec.observations if not t.is_image)
        )
        ordered = [part.in_order() for part in parts]
        self._episodes = [
            (part.store, index) for part, own in zip(parts, ordered, strict=True) for index in own
        ]
        records = [store.episodes[index] for store, index in self._episodes]
        self.instructions = tuple(sorted({record.instruction for record in records}))
        place = {instruction: i for i, instruction in enumerate(self.instructions)}
        self._instruction = np.array([place[r.instruction] for r in records], np.int64)
        lengths = np.array([record.length for record in records])
        clip_counts = np.array([self._clips(int(length)) for length in lengths])
        self._first_step = np.cumsum([0, *lengths])  # of each episode, through all of them
        self._first_clip = np.cumsum([0, *clip_counts])
        sizes = [
            sum(self._clips(part.store.episodes[index].length) for index in own)
            for part, own in zip(parts, ordered, strict=True)
        ]
        self._order = order_of(parts, sizes, seed)
        vectors = self.spec.tensors
        self._vectors = load_vectors(
            vectors, self._episodes, cache or DecodedCache.default(), _RAM_BYTES, actions
        )
        self._latents = EpisodeFiles(
            latents.shape,
            DTYPE,
            clip_counts,
            lambda episode: latents.file(records[episode].digest),
            lambda episode: f"the latents of {describe_episode(*self._episodes[episode])}",
            MapBudget(),
        )
        self._shape = latents.shape
        self._buffers = BatchBuffers()

    @property
    def windows(self) -> int:
        """How many clips there are. One epoch."""
        return int(self._first_clip[-1])

    def prepare(
        self,
        tell: Tell,
        workers: int,
        steps: range | None = None,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        """Nothing: latents are plain files already."""

    def batch(self, step: int, part: tuple[int, int] = (0, 1)) -> Batch:
        """The batch of training step `step`, counted from 0; `part` as in `WindowSampler.batch`."""
        clips, episodes = self._windows_of(step, part)
        inside = clips - self._first_clip[episodes]
        first, end = self._first_step[episodes, None], self._first_step[episodes + 1, None]
        now = first + inside[:, None] * self._every  # (B, 1)
        ahead = now + np.arange(self.horizon)  # (B, H)
        kept = self._buffers.take((len(clips), 1, *self._shape), DTYPE.str)
        self._latents.read(episodes, inside[:, None], kept)
        observations = {
            tensor.name: self._vectors[tensor.name][now[:, 0]] for tensor in self.spec.observations
        }
        observations[LATENTS] = kept[:, 0].astype(np.float32)
        return Batch(
            observations,
            self._vectors[ACTION][np.minimum(ahead, end - 1)],
            valid=ahead < end,
            observed=now + np.arange(1 - self.history, 1) >= first,
            instruction=self._instruction[episodes],
        )

    def places(self, step: int, part: tuple[int, int] = (0, 1)) -> list[tuple[str, int]]:
        """Where the windows of `batch(step, part)` are: the episode in words, its step."""
        clips, episodes = self._windows_of(step, part)
        steps = (clips - self._first_clip[episodes]) * self._every
        return [
            (describe_episode(*self._episodes[episode]), at)
            for episode, at in zip(episodes.tolist(), steps.tolist(), strict=True)
        ]

    def _clips(self, length: int) -> int:
        """How many an episode of so many steps has."""
        return len(clip_ends(length, self._every))

    def _windows_of(self, step: int, part: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """The clips of a batch (B,), and the episodes that they are of."""
        rank, world = part
        if self.batch_size % world:
            raise ConfigError(
                f"batch_size={self.batch_size} cannot be shared equally by {world} processes. "
                f"Use a multiple of {world}."
            )
        count = self.batch_size // world
        start = step * self.batch_size + rank * count
        clips = self._order.at(np.arange(start, start + count))
        return clips, np.searchsorted(self._first_clip, clips, side="right") - 1


def _require_latents(parts: Sequence[DataPart], latents: LatentStore) -> None:
    missing = latents.missing(parts)
    if missing:
        raise StoreError(
            f"{latents.folder} has no latents of {len(missing)} episodes, as "
            f"{describe_episode(*missing[0])}. Encode them first."
        )
