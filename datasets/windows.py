"""Batches of training windows: the observations up to step t and the actions t..t+H-1.

Shapes: B windows of a batch, O observations of a window, H action horizon, A action dim. Every
step of every episode starts one window, and no window reaches into another episode: past its
episode's end it repeats the last action and says so in `valid`, before its start the first
observation and says so in `observed`.

For a policy that is told what is in flight, a window also has the D actions that were executed from
step t on, which on a robot that computes are those of the chunk before.

Batches run across the border of two epochs: no tail is dropped, and each window comes exactly
once in an epoch. Which windows a batch holds depends on (data, seed, step) alone, so a training
run that resumes at a step goes on exactly as the one that was not interrupted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from loopdit.datasets.action_filters import ActionFilter
from loopdit.datasets.batch_buffers import BatchBuffers
from loopdit.datasets.decoded_cache import DecodedCache
from loopdit.datasets.decoding_ahead import Tell, decode_ahead
from loopdit.datasets.episode import EXECUTED_ACTION
from loopdit.datasets.frame_sources import CameraFrames, decoded_frame_by_frame
from loopdit.datasets.mapped_frames import MapBudget
from loopdit.datasets.mixing import DataPart, order_of, parts_of
from loopdit.datasets.step_vectors import describe_episode, load_vectors
from loopdit.datasets.store import ACTION, EpisodeStore
from loopdit.errors import ConfigError


@dataclass(frozen=True)
class Batch:
    """Observations by name in the spec's dtypes, (B, ...), or with a history (B, O, ...), oldest
    first; actions (B, H, A) float32 in raw units.

    valid (B, H) bool is false where an action is a repetition past its episode's end, observed
    (B, O) bool where an observation is one before its start. instruction (B,) int64 is the place
    of the window's in the sampler's `instructions`. Only of a sampler with in_flight=D: executed
    (B, D, A) float32 in raw units, what was executed at steps t..t+D-1, the last repeated past the
    end. The arrays are the batch's own: they may be written to.
    """

    observations: dict[str, np.ndarray]
    actions: np.ndarray
    valid: np.ndarray
    observed: np.ndarray
    instruction: np.ndarray
    executed: np.ndarray | None = None


class WindowSampler:
    """The windows of one or several data sets in a random order, anew in each epoch.

    Frames are read from their files at each batch; vectors are held in memory up to `ram_bytes`.
    Compressed and remote data are decoded into `cache` on first use. `actions` changes each
    episode's actions as they are loaded, but not the executed ones, which are asked for by
    in_flight=D (see `Batch`; `step_vectors.read_executed`). Usable by several threads.
    """

    def __init__(
        self,
        data: EpisodeStore | Sequence[DataPart],
        horizon: int,
        batch_size: int,
        seed: int,
        history: int = 1,
        cache: DecodedCache | None = None,
        ram_bytes: int = 1 << 30,
        actions: ActionFilter | None = None,
        in_flight: int = 0,
    ) -> None:
        _check_settings(
            horizon=horizon, batch_size=batch_size, seed=seed, history=history, in_flight=in_flight
        )
        parts = parts_of(data)
        self.horizon = horizon
        self.history = history
        self.in_flight = in_flight
        self.batch_size = batch_size
        self.seed = seed
        self.spec = parts[0].store.spec
        self._cache = cache = cache or DecodedCache.default()
        ordered = [part.in_order() for part in parts]
        episodes = [
            (part.store, index) for part, own in zip(parts, ordered, strict=True) for index in own
        ]
        lengths = np.array([store.episodes[index].length for store, index in episodes])
        self._episodes = episodes
        said = [store.episodes[index].instruction for store, index in episodes]
        self.instructions = tuple(sorted(set(said)))
        place = {instruction: i for i, instruction in enumerate(self.instructions)}
        self._instruction = np.array([place[instruction] for instruction in said], np.int64)
        # Steps are numbered through all episodes: episode e has those from starts[e] on.
        self._starts = np.cumsum([0, *lengths])
        sizes = [
            sum(part.store.episodes[index].length for index in own)
            for part, own in zip(parts, ordered, strict=True)
        ]
        self._order = order_of(parts, sizes, seed)
        direct = decoded_frame_by_frame(parts, cache)
        vectors = [t for t in self.spec.tensors if not t.is_image]
        if in_flight:
            vectors.append(replace(self.spec.action, name=EXECUTED_ACTION))
        self._vectors = load_vectors(vectors, episodes, cache, ram_bytes, actions)
        budget = MapBudget()
        self._frames = {
            camera.name: CameraFrames(camera, episodes, lengths, direct, cache, budget)
            for camera in self.spec.cameras
        }
        self._buffers = BatchBuffers()
        self.notes = (*_notes(parts, direct, cache), *(_labels_taken(parts) if in_flight else ()))

    @property
    def windows(self) -> int:
        """How many windows there are: as many as steps. One epoch."""
        return int(self._starts[-1])

    def prepare(
        self,
        tell: Tell,
        workers: int,
        steps: range | None = None,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        """Decode into the cache now what batches would otherwise decode when they meet it.

        `tell(done, total)` is called after each file. The first batches of compressed data are
        slow without this: in random order each window decodes an episode. `steps`: only what the
        batches of these steps need. `part` (rank, world): one of `world` shares of the work.
        """
        met = self._met(steps)
        wanted = [
            (*self._episodes[episode], camera)
            for camera, frames in self._frames.items()
            for episode in frames.undecoded()
            if episode % part[1] == part[0] and (met is None or episode in met)
        ]
        decode_ahead(self._cache, wanted, tell, workers)

    def batch(self, step: int, part: tuple[int, int] = (0, 1)) -> Batch:
        """The batch of training step `step`, counted from 0.

        `part` (rank, world) gives one of `world` equal slices of it: together they are the batch.
        """
        windows, episodes = self._windows_of(step, part)
        first, end = self._starts[episodes, None], self._starts[episodes + 1, None]
        past = windows[:, None] + np.arange(1 - self.history, 1)  # (B, O)
        ahead = windows[:, None] + np.arange(self.horizon)  # (B, H)
        seen = np.maximum(past, first)
        observations = {
            tensor.name: self._read_frames(tensor.name, episodes, seen - first)
            if tensor.is_image
            else self._vectors[tensor.name][seen if self.history > 1 else windows]
            for tensor in self.spec.observations
        }
        actions = self._vectors[ACTION][np.minimum(ahead, end - 1)]
        executed = None
        if self.in_flight:
            following = np.minimum(windows[:, None] + np.arange(self.in_flight), end - 1)
            executed = self._vectors[EXECUTED_ACTION][following]
        return Batch(
            observations,
            actions,
            valid=ahead < end,
            observed=past >= first,
            instruction=self._instruction[episodes],
            executed=executed,
        )

    def places(self, step: int, part: tuple[int, int] = (0, 1)) -> list[tuple[str, int]]:
        """Where the windows of `batch(step, part)` begin: the episode in words, its step."""
        windows, episodes = self._windows_of(step, part)
        begins = (windows - self._starts[episodes]).tolist()
        return [
            (describe_episode(*self._episodes[episode]), begin)
            for episode, begin in zip(episodes.tolist(), begins, strict=True)
        ]

    def _met(self, steps: range | None) -> set[int] | None:
        """The episodes that the batches of these steps have windows of; None: maybe all."""
        if steps is None or len(steps) * self.batch_size >= self.windows:
            return None
        positions = np.arange(steps.start * self.batch_size, steps.stop * self.batch_size)
        windows = self._order.at(positions)
        return set((np.searchsorted(self._starts, windows, side="right") - 1).tolist())

    def _windows_of(self, step: int, part: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """The windows of a batch (B,), and the episodes that they are in."""
        rank, world = part
        if self.batch_size % world:
            raise ConfigError(
                f"batch_size={self.batch_size} cannot be shared equally by {world} processes. "
                f"Use a multiple of {world}."
            )
        count = self.batch_size // world
        start = step * self.batch_size + rank * count
        windows = self._order.at(np.arange(start, start + count))
        return windows, np.searchsorted(self._starts, windows, side="right") - 1

    def _read_frames(self, camera: str, episodes: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """One camera's frames at these steps (B, O): (B, H, W, 3), or (B, O, H, W, 3)."""
        tensor = next(t for t in self.spec.cameras if t.name == camera)
        frames = self._buffers.take((*steps.shape, *tensor.shape), tensor.dtype)
        self._frames[camera].read(episodes, steps, frames)
        return frames if self.history > 1 else frames[:, 0]


def _notes(
    parts: Sequence[DataPart], direct: Sequence[EpisodeStore], cache: DecodedCache
) -> tuple[str, ...]:
    """What a user should be told before training on this."""
    notes = [
        f"{store.path} does not fit the cache of decoded episodes, so its JPEGs are decoded at "
        f"each use, which is slower"
        for store in direct
    ]
    cached = [part.store for part in parts if part.store not in direct]
    if any(not store.is_plain(t.name) for store in cached for t in store.spec.observations):
        notes.append(cache.describe())
    return tuple(notes)


def _labels_taken(parts: Sequence[DataPart]) -> list[str]:
    """What to say where labels stand for what was executed; the first episode speaks for all."""
    return [
        f"{part.store.path} does not say which actions were executed: its labels are taken for them"
        for part in parts
        if EXECUTED_ACTION not in part.store.extras(part.in_order()[0], EXECUTED_ACTION)
    ]


def _check_settings(**settings: int) -> None:
    for name, value in settings.items():
        least = 0 if name in ("seed", "in_flight") else 1
        if value < least:
            raise ConfigError(f"{name} is {value}. Use {least} or more.")
