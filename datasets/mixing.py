"""Which window stands at each position of the endless stream that training reads: in closed form.

Windows are numbered 0..N-1, part after part. Without weights the stream is one permutation of all
of them after another, anew in each epoch. With weights each part has a stream of that kind of its
own, and blocks of 65536 positions say whose turn it is: every block holds each part's share
exactly (to the nearest window), in random order. So any position is found from the seed alone:
a run resumes at its exact window, and several readers agree without talking.

Memory: 4 bytes for each window of the two epochs used last (8 beyond 2**32 windows), 16 while an
epoch's order is made. Frames of two 128x128 cameras have 98304 bytes a window.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from loopdit.datasets.store import EpisodeStore
from loopdit.errors import ConfigError, StoreError

BLOCK = 1 << 16
_EPOCHS, _TURNS = 0, 1  # a word of Philox's counter: what the random bits are for


@dataclass(frozen=True)
class DataPart:
    """Some episodes of a store, by index, and their share of the samples.

    A weight counts in proportion to the other parts' weights; None in all parts takes every
    window equally often.
    """

    store: EpisodeStore
    episodes: Sequence[int]
    weight: float | None = None

    def in_order(self) -> list[int]:
        """Its episodes in the store's canonical order, each once."""
        chosen = set(self.episodes)
        return [index for index in self.store.canonical_order() if index in chosen]


def parts_of(data: EpisodeStore | Sequence[DataPart]) -> tuple[DataPart, ...]:
    """The parts of what is trained on: a store is one part with all its episodes.

    Raises StoreError for a part without episodes, SpecMismatch where the specs differ, and
    ConfigError where only some parts have a weight or one is not above 0.
    """
    if isinstance(data, EpisodeStore):
        data = [DataPart(data, range(len(data.episodes)))]
    parts = tuple(data)
    if not parts:
        raise ConfigError("no data set is named. Give at least one.")
    for part in parts:
        _check_episodes(part)
        parts[0].store.spec.require_equal(
            part.store.spec,
            f"the data set {parts[0].store.path}",
            f"the data set {part.store.path}",
            "Mix only data of one spec: convert one of them, or train on them apart.",
        )
    _check_weights(parts)
    return parts


class Order(Protocol):
    """Positions of the stream (B,) to windows (B,), both int64."""

    def at(self, positions: np.ndarray) -> np.ndarray:
        """The windows at these positions."""
        ...


def order_of(parts: Sequence[DataPart], sizes: Sequence[int], seed: int) -> Order:
    """The order of parts of so many windows each."""
    if len(parts) == 1 or parts[0].weight is None:
        return EpochOrder(sum(sizes), seed)
    return MixedOrder(sizes, [part.weight or 0.0 for part in parts], seed)


class EpochOrder:
    """One permutation of `windows` after another. Usable by several threads."""

    def __init__(self, windows: int, seed: int, stream: int = 0) -> None:
        self._windows = windows
        self._seed = seed
        self._stream = stream
        self._kept = np.uint32 if windows <= 1 << 32 else np.int64
        self._lock = threading.Lock()
        self._epoch = lru_cache(maxsize=2)(self._shuffled)

    def at(self, positions: np.ndarray) -> np.ndarray:
        """The windows at these positions: position N is the first of the second epoch."""
        epochs, inside = np.divmod(positions, self._windows)
        windows = np.empty(len(positions), np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            with self._lock:  # two threads at an epoch's border would make its order twice
                order = self._epoch(int(epoch))
            windows[here] = order[inside[here]]
        return windows

    def _shuffled(self, epoch: int) -> np.ndarray:
        bits = _random_bits(self._seed, epoch, self._stream, _EPOCHS, self._windows)
        return np.argsort(bits, kind="stable").astype(self._kept)


class MixedOrder:
    """Windows of several parts by weight. Usable by several threads."""

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], seed: int) -> None:
        self._quotas = block_quotas(weights)
        self._offsets = np.cumsum([0, *sizes[:-1]])
        self._streams = [EpochOrder(size, seed, part) for part, size in enumerate(sizes)]
        self._seed = seed
        self._block = lru_cache(maxsize=4)(self._turns)

    def at(self, positions: np.ndarray) -> np.ndarray:
        """The windows at these positions."""
        blocks, inside = np.divmod(positions, BLOCK)
        parts = np.empty(len(positions), np.int64)
        counts = np.empty(len(positions), np.int64)  # how many of its part came before
        for block in np.unique(blocks):
            here = blocks == block
            whose, before = self._block(int(block))
            parts[here] = whose[inside[here]]
            counts[here] = before[inside[here]] + block * self._quotas[parts[here]]
        windows = np.empty(len(positions), np.int64)
        for part in np.unique(parts):
            here = parts == part
            windows[here] = self._offsets[part] + self._streams[part].at(counts[here])
        return windows

    def _turns(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Whose turn each position of a block is, and how many turns that part had in it before."""
        bits = _random_bits(self._seed, block, 0, _TURNS, BLOCK)
        whose = np.repeat(np.arange(len(self._quotas)), self._quotas)
        whose = whose[np.argsort(bits, kind="stable")]
        before = np.empty(BLOCK, np.int64)
        for part, quota in enumerate(self._quotas):
            before[whose == part] = np.arange(quota)
        return whose, before


def block_quotas(weights: Sequence[float]) -> np.ndarray:
    """How many of a block's positions each part has: shares by largest remainder.

    Raises ConfigError for a weight too small to have one.
    """
    shares = np.asarray(weights, np.float64) / np.sum(weights) * BLOCK
    quotas = np.floor(shares).astype(np.int64)
    largest = np.argsort(quotas - shares, kind="stable")  # most negative first
    quotas[largest[: BLOCK - quotas.sum()]] += 1
    if not quotas.all():
        part = int(np.argmin(quotas))
        raise ConfigError(
            f"the weight {weights[part]} of data set {part + 1} of {len(weights)} is less than one "
            f"sample in {BLOCK}. Raise it, or leave that data set out."
        )
    return quotas


def _random_bits(seed: int, key: int, stream: int, purpose: int, count: int) -> np.ndarray:
    # Raw bits and a stable sort: numpy promises both for ever, but not its permutation(). The
    # counter's low words count the numbers drawn, so its high words give streams that never meet.
    generator = np.random.Philox(
        key=np.array([seed, key], dtype=np.uint64),
        counter=np.array([0, 0, purpose, stream], dtype=np.uint64),
    )
    return generator.random_raw(count)


def _check_episodes(part: DataPart) -> None:
    there = len(part.store.episodes)
    if not there:
        raise StoreError(
            f"the store {part.store.path} has no episodes to train on. Record some: policy-collect."
        )
    if not part.episodes:
        raise StoreError(
            f"none of the {there} episodes of {part.store.path} are left to train on. "
            f"Loosen the filter."
        )


def _check_weights(parts: Sequence[DataPart]) -> None:
    weights = [part.weight for part in parts]
    if any(weight is None for weight in weights) != all(weight is None for weight in weights):
        raise ConfigError(
            f"only some data sets have a weight: {weights}. Give one to all, or none."
        )
    for part in parts:
        if part.weight is not None and not 0 < part.weight < float("inf"):
            raise ConfigError(
                f"the weight of {part.store.path} is {part.weight}. "
                f"Use a number above 0, or leave that data set out."
            )
