"""What is looked at before a training starts, so that it does not end in its third hour.

Every vector is read once, for numbers that are not finite. Of frames only the size of each plain
file is looked at: whether a compressed one decodes is `policy-data verify`'s to find out.
"""

from collections.abc import Sequence

import numpy as np

from loopdit.datasets.decoded_cache import DecodedCache
from loopdit.datasets.mapped_frames import require_size
from loopdit.datasets.mixing import DataPart, parts_of
from loopdit.datasets.step_vectors import describe_episode, read_vector
from loopdit.datasets.store import EpisodeStore
from loopdit.errors import StoreError


def check_parts(data: EpisodeStore | Sequence[DataPart], cache: DecodedCache | None = None) -> None:
    """Raise StoreError or SpecMismatch, naming the store, the episode and the key, for the first
    fault: specs that differ, a file that is missing or cut short, a number that is not finite."""
    parts = parts_of(data)
    cache = cache or DecodedCache.default()
    for part in parts:
        store = part.store
        for index in part.in_order():
            for tensor in store.spec.tensors:
                if not tensor.is_image:
                    _require_finite(store, index, tensor.name, cache)
                elif store.is_plain(tensor.name):
                    _require_whole(store, index, tensor.name)


def _require_finite(store: EpisodeStore, index: int, name: str, cache: DecodedCache) -> None:
    values = read_vector(store, index, name, cache)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        step, *element = np.argwhere(~np.isfinite(values))[0].tolist()
        raise StoreError(
            f"{name} of {describe_episode(store, index)} is {values[step, *element]} at step "
            f"{step}, index {element}. Take that episode out, or record it again."
        )


def _require_whole(store: EpisodeStore, index: int, name: str) -> None:
    size = store.tensors(index)[name].nbytes
    require_size(store.file(index, name), size, describe_episode(store, index))
