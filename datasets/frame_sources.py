"""Where the frames of each episode are read from: its store's own plain files, files decoded into
the cache, or, for JPEGs that the cache cannot hold, one decoded frame after the other.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from loopdit.datasets.decoded_cache import FOLDER_VARIABLE, SIZE_VARIABLE, DecodedCache
from loopdit.datasets.mapped_frames import EpisodeFiles, MapBudget
from loopdit.datasets.mixing import DataPart
from loopdit.datasets.spec import TensorSpec
from loopdit.datasets.step_vectors import StoredEpisode, describe_episode
from loopdit.datasets.store import EpisodeStore
from loopdit.errors import StoreError


def decoded_frame_by_frame(parts: Iterable[DataPart], cache: DecodedCache) -> list[EpisodeStore]:
    """The stores whose JPEGs are decoded anew at each use, because the cache cannot hold them;
    room for all others that need it is reserved there.

    Raises StoreError, saying what to set, for another store that does not fit.
    """
    direct: list[EpisodeStore] = []
    for part in parts:
        store = part.store
        names = [t.name for t in store.spec.tensors]
        lacking = cache.reserve(
            store, part.episodes, [name for name in names if not store.is_plain(name)]
        )
        if not lacking:
            continue
        if store.frames != "jpeg" or not isinstance(store.path, Path):
            raise StoreError(
                f"{store.path} must be decoded before it can be read in random order, and "
                f"{lacking / 1e6:,.0f} MB of that do not fit the cache {cache.folder}, which may "
                f"have {cache.max_bytes / 1e6:,.0f} MB as far as its disk has room. Give it more "
                f"with {SIZE_VARIABLE}=GIB (or cache_gib=), another disk with "
                f"{FOLDER_VARIABLE}=FOLDER, or convert the data to a local store with frames=raw "
                f"or frames=jpeg."
            )
        direct.append(store)
    return direct


class CameraFrames:
    """One camera's frames of all episodes, by the number of the episode. Usable by threads."""

    def __init__(
        self,
        camera: TensorSpec,
        episodes: Sequence[StoredEpisode],
        lengths: np.ndarray,
        direct: Sequence[EpisodeStore],
        cache: DecodedCache,
        budget: MapBudget,
    ) -> None:
        self._name = camera.name
        self._episodes = episodes
        ids = {id(store) for store in direct if not store.is_plain(camera.name)}
        self._is_direct = np.array([id(store) in ids for store, _ in episodes])
        self._cache = cache
        self._files = EpisodeFiles(
            camera.shape,
            np.dtype(camera.dtype).newbyteorder("<"),
            lengths,
            self.locate,
            lambda episode: describe_episode(*episodes[episode]),
            budget,
        )

    def read(self, episodes: np.ndarray, steps: np.ndarray, out: np.ndarray) -> None:
        """Copy of each of these episodes (B,) the frames at `steps` (B, O) into `out`
        (B, O, H, W, 3)."""
        direct = self._is_direct[episodes]
        for row in np.flatnonzero(direct).tolist():
            store, index = self._episodes[episodes[row]]
            wanted, inverse = np.unique(steps[row], return_inverse=True)
            out[row] = store.decode(index, self._name, wanted.tolist())[inverse]
        if not direct.any():
            self._files.read(episodes, steps, out)
            return
        for row in np.flatnonzero(~direct).tolist():
            here = slice(row, row + 1)
            self._files.read(episodes[here], steps[here], out[here])

    def undecoded(self) -> list[int]:
        """The numbers of the episodes that are read from the cache and are not yet in it."""
        stores = {id(store): store for store, _ in self._episodes}
        plain = {key: store.is_plain(self._name) for key, store in stores.items()}
        return [
            episode
            for episode, (store, index) in enumerate(self._episodes)
            if not plain[id(store)]
            and not self._is_direct[episode]
            and not self._cache.holds(store, index, self._name)
        ]

    def locate(self, episode: int) -> Path:
        """The plain file of one episode; decodes it where it is not there yet."""
        store, index = self._episodes[episode]
        if store.is_plain(self._name):
            return store.file(index, self._name)
        return self._cache.file(store, index, self._name)
