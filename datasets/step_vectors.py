"""The vectors of all steps of all episodes, one array (N, ...) for each tensor that is no image.

They are small: 30 float32 are 120 bytes a step where the frames of two 128x128 cameras are 98304.
In memory they are read fastest; beyond a bound they go to a file without a name, which is mapped,
so that the memory a training needs does not grow with its data.
"""

import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from loopdit.datasets.action_filters import ActionFilter
from loopdit.datasets.decoded_cache import DecodedCache
from loopdit.datasets.episode import ACTION, EXECUTED_ACTION
from loopdit.datasets.mapped_frames import require_size
from loopdit.datasets.spec import TensorSpec
from loopdit.datasets.store import EpisodeStore
from loopdit.errors import StoreError

StoredEpisode = tuple[EpisodeStore, int]  # a store and an episode's index in it
_DOWNLOADS = 8


def load_vectors(
    tensors: Iterable[TensorSpec],
    episodes: Sequence[StoredEpisode],
    cache: DecodedCache,
    ram_bytes: int,
    actions: ActionFilter | None = None,
) -> dict[str, np.ndarray]:
    """All steps (N, ...) of these tensors, one episode after the other, read-only.

    `actions` changes each episode's actions as they are read. A tensor called EXECUTED_ACTION is
    what `read_executed` reads, unchanged.
    Raises StoreError for a file that is missing, of another size, or cannot be written.
    """
    tensors = list(tensors)
    steps = sum(store.episodes[index].length for store, index in episodes)
    total = steps * sum(int(np.prod(t.shape)) * np.dtype(t.dtype).itemsize for t in tensors)
    load = _in_memory if total <= ram_bytes else _in_nameless_file
    return {
        t.name: load((steps, *t.shape), t, episodes, cache, actions if t.name == ACTION else None)
        for t in tensors
    }


def read_vector(store: EpisodeStore, index: int, name: str, cache: DecodedCache) -> np.ndarray:
    """One tensor (T, ...) of one episode; of a store far away through the cache."""
    file = store.file(index, name) if store.is_plain(name) else cache.file(store, index, name)
    tensor = store.tensors(index)[name]
    require_size(file, tensor.nbytes, describe_episode(store, index))
    return np.fromfile(file, tensor.dtype).reshape(tensor.shape)


def read_executed(store: EpisodeStore, index: int, cache: DecodedCache) -> np.ndarray:
    """The actions (T, A) float32 that one episode's robot really executed: the extra of that name,
    or its labels where it has none. Raises StoreError for an extra that cannot be them."""
    found = store.extras(index, EXECUTED_ACTION).get(EXECUTED_ACTION)
    if found is None:
        return read_vector(store, index, ACTION, cache)
    wanted = store.tensors(index)[ACTION].shape
    if found.shape != wanted or found.dtype.kind != "f" or not np.isfinite(found).all():
        raise StoreError(
            f"the extra {EXECUTED_ACTION} of {describe_episode(store, index)} has shape "
            f"{found.shape} and dtype {found.dtype}; executed actions are finite numbers of shape "
            f"{wanted}. Record that episode again, or leave it out."
        )
    return found.astype(np.float32)


def describe_episode(store: EpisodeStore, index: int) -> str:
    """What a message calls an episode: "episode_000012 of PATH"."""
    return f"{store.episodes[index].id} of {store.path}"


def _in_memory(
    shape: tuple[int, ...],
    tensor: TensorSpec,
    episodes: Sequence[StoredEpisode],
    cache: DecodedCache,
    change: ActionFilter | None,
) -> np.ndarray:
    values = np.empty(shape, tensor.dtype)
    start = 0

    def keep(part: np.ndarray) -> None:
        nonlocal start
        values[start : start + len(part)] = part
        start += len(part)

    _each(tensor.name, episodes, cache, change, keep)
    values.flags.writeable = False
    return values


def _in_nameless_file(
    shape: tuple[int, ...],
    tensor: TensorSpec,
    episodes: Sequence[StoredEpisode],
    cache: DecodedCache,
    change: ActionFilter | None,
) -> np.ndarray:
    # Beside the cache: /tmp is memory on many machines.
    place: Path = cache.folder
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place) as file:
            _each(tensor.name, episodes, cache, change, lambda part: file.write(part.data))
            file.flush()
            return np.asarray(np.memmap(file, tensor.dtype, mode="r", shape=shape))
    except OSError as error:
        raise StoreError(
            f"cannot write the vectors of {shape[0]} steps to {place}: {error.strerror}. Free "
            f"space there, or name a folder on another disk: LOOPDIT_CACHE=FOLDER."
        ) from error


def _each(
    name: str,
    episodes: Sequence[StoredEpisode],
    cache: DecodedCache,
    change: ActionFilter | None,
    keep: Callable[[np.ndarray], object],
) -> None:
    """Give `keep` one tensor of every episode, changed by `change`, in order."""

    def read(at: StoredEpisode) -> np.ndarray:
        if name == EXECUTED_ACTION:
            return read_executed(*at, cache)
        values = read_vector(*at, name, cache)
        return values if change is None else change(values)

    source = ACTION if name == EXECUTED_ACTION else name
    if all(store.is_plain(source) for store, _ in episodes):
        for at in episodes:
            keep(read(at))
        return
    with ThreadPoolExecutor(_DOWNLOADS) as pool:
        # In groups: the pool would else hold every episode that `keep` has not come to.
        for start in range(0, len(episodes), 16 * _DOWNLOADS):
            group = episodes[start : start + 16 * _DOWNLOADS]
            for part in pool.map(read, group):
                keep(part)
