"""Batches of training windows: the observation at step t and the actions t..t+H-1.

Shapes: B windows of a batch, H action horizon, A action dim. Past the end of its episode a window
repeats the last action and says so in `valid`. Every step of every episode starts one window.

Batches run across the border of two epochs: no tail is dropped, and each window comes exactly
once in an epoch. Which windows a batch holds depends on (data, seed, step) alone, so a training
run that resumes at a step goes on exactly as the one that was not interrupted.
"""

import os
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from loopdit.datasets.store import ACTION, EpisodeStore
from loopdit.errors import ConfigError, StoreError


@dataclass(frozen=True)
class Batch:
    """Observations by name (B, ...) in the spec's dtypes, actions (B, H, A) float32 in raw units,
    valid (B, H) bool: false where an action is a repetition past its episode's end.

    The arrays are the batch's own: they may be written to.
    """

    observations: dict[str, np.ndarray]
    actions: np.ndarray
    valid: np.ndarray


class WindowSampler:
    """The windows of a store in a random order, anew in each epoch.

    Vectors are held in memory, and images too where all of them fit `ram_bytes`; otherwise the
    frames of a batch are read from the store's files, about ten times slower.
    """

    def __init__(
        self,
        store: EpisodeStore,
        horizon: int,
        batch_size: int,
        seed: int,
        ram_bytes: int = 2 << 30,
    ) -> None:
        _check_settings(horizon, batch_size, seed)
        if not store.episodes:
            raise StoreError(
                f"the store {store.path} has no episodes to train on. Record some: policy-collect."
            )
        self.horizon = horizon
        self.batch_size = batch_size
        self.seed = seed
        self._store = store
        self._episodes = store.canonical_order()
        lengths = np.array([store.episodes[i].length for i in self._episodes])
        # Steps are numbered through all episodes; (N,) for each its episode's first and last.
        self._episode_of = np.repeat(np.arange(len(lengths)), lengths)
        self._first = np.repeat(np.cumsum(lengths) - lengths, lengths)
        self._last = np.repeat(np.cumsum(lengths) - 1, lengths)
        image_bytes = sum(int(np.prod(camera.shape)) for camera in store.spec.cameras)
        in_ram = self.windows * image_bytes <= ram_bytes
        self._on_disk = [] if in_ram else [camera.name for camera in store.spec.cameras]
        self._steps = self._load_steps()
        self._epoch_order = lru_cache(maxsize=2)(self._shuffled)

    @property
    def windows(self) -> int:
        """How many windows there are: as many as steps. One epoch."""
        return len(self._last)

    def batch(self, step: int) -> Batch:
        """The batch of training step `step`, counted from 0."""
        start = step * self.batch_size
        positions = np.arange(start, start + self.batch_size)
        epochs = positions // self.windows
        windows = np.concatenate(
            [
                self._epoch_order(int(epoch))[positions[epochs == epoch] % self.windows]
                for epoch in np.unique(epochs)
            ]
        )
        ahead = windows[:, None] + np.arange(self.horizon)  # (B, H)
        last = self._last[windows][:, None]
        observations = {
            tensor.name: self._read_frames(tensor.name, windows)
            if tensor.name in self._on_disk
            else self._steps[tensor.name][windows]
            for tensor in self._store.spec.observations
        }
        actions = self._steps[ACTION][np.minimum(ahead, last)]
        return Batch(observations, actions, ahead <= last)

    def _shuffled(self, epoch: int) -> np.ndarray:
        """The windows (N,) in the order of one epoch."""
        # Raw bits and a stable sort: numpy promises both for ever, but not its permutation().
        bits = np.random.Philox(key=np.array([self.seed, epoch], dtype=np.uint64))
        return np.argsort(bits.random_raw(self.windows), kind="stable")

    def _load_steps(self) -> dict[str, np.ndarray]:
        """All steps (N, ...) of each tensor that is held in memory."""
        tensors = {t.name: t for t in self._store.spec.observations} | {
            ACTION: self._store.spec.action
        }
        steps = {
            name: np.empty((self.windows, *tensor.shape), tensor.dtype)
            for name, tensor in tensors.items()
            if name not in self._on_disk
        }
        start = 0
        for index in self._episodes:
            arrays = self._store.arrays(index)
            end = start + self._store.episodes[index].length
            for name, values in steps.items():
                values[start:end] = arrays[name]
            start = end
        return steps

    def _read_frames(self, camera: str, windows: np.ndarray) -> np.ndarray:
        """One camera's frames (B, H, W, 3), straight from the files into the batch.

        Not from memory maps: numpy's keep a file descriptor each, and a thousand episodes of two
        cameras are more than a process may have open.
        """
        tensor = next(t for t in self._store.spec.cameras if t.name == camera)
        frames = np.empty((len(windows), *tensor.shape), tensor.dtype)
        for frame, window in zip(frames, windows, strict=True):
            file = self._store.file(self._episodes[self._episode_of[window]], camera)
            descriptor = os.open(file, os.O_RDONLY)
            try:
                offset = int(window - self._first[window]) * frame.nbytes
                read = os.preadv(descriptor, [frame.data], offset)
            finally:
                os.close(descriptor)
            if read != frame.nbytes:
                raise StoreError(f"{file} ends before step {window - self._first[window]}.")
        return frames


def _check_settings(horizon: int, batch_size: int, seed: int) -> None:
    for name, value, least in (
        ("horizon", horizon, 1),
        ("batch_size", batch_size, 1),
        ("seed", seed, 0),
    ):
        if value < least:
            raise ConfigError(f"{name} is {value}. Use {least} or more.")
