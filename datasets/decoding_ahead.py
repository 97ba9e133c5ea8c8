"""Decoding into the cache at once and by many threads, before it is done piece by piece.

In random order nearly every window of compressed data meets an episode that is not decoded yet,
and a check that reads far away data one file after the other waits for each.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from loopdit.datasets.decoded_cache import DecodedCache
from loopdit.datasets.mixing import DataPart
from loopdit.datasets.store import EpisodeStore

Tell = Callable[[int, int], object]  # files done, of how many
Wanted = tuple[EpisodeStore, int, str]  # one tensor of one episode


def decode_ahead(cache: DecodedCache, wanted: Sequence[Wanted], tell: Tell, workers: int) -> None:
    """Decode these by so many threads; `tell` is called after each.

    Raises StoreError like `DecodedCache.file`; what is decoded by then stays.
    """
    with ThreadPoolExecutor(workers) as pool:
        made = pool.map(lambda at: cache.file(*at), wanted)
        try:
            for done, _ in enumerate(made, 1):
                tell(done, len(wanted))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def vectors_to_decode(parts: Sequence[DataPart], cache: DecodedCache) -> list[Wanted]:
    """The vectors of these episodes that are read from the cache and are not yet in it."""
    return [
        (part.store, index, tensor.name)
        for part in parts
        for tensor in part.store.spec.tensors
        if not tensor.is_image and not part.store.is_plain(tensor.name)
        for index in part.in_order()
        if not cache.holds(part.store, index, tensor.name)
    ]
