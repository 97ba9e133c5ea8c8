"""The range and spread of each vector of a data set: what a policy's normaliser is made of.

Over all steps of all episodes, each element by itself, in raw units, however the parts are
weighted. Images have none. Nothing is approximate, and beyond a bound the memory it takes is that
of one element of all steps.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from loopdit.datasets.action_filters import ActionFilter
from loopdit.datasets.decoded_cache import DecodedCache
from loopdit.datasets.mixing import DataPart, parts_of
from loopdit.datasets.step_vectors import load_vectors
from loopdit.datasets.store import EpisodeStore
from loopdit.errors import SpecMismatch

_RAM_BYTES = 1 << 30  # vectors beyond that are read from a file
_BLOCK = 1 << 16  # rows


@dataclass(frozen=True)
class VectorStatistics:
    """One number for each element of a vector, in its raw units.

    `std` is the population's and 0 for an element that never changes; `low` and `high` are the
    extremes, `q01` and `q99` the first and last percentile.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    q01: tuple[float, ...]
    q99: tuple[float, ...]

    def to_dict(self) -> dict[str, list[float]]:
        """Plain JSON types; `from_dict` reads it back exactly."""
        return {name: list(values) for name, values in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "VectorStatistics":
        """Read what `to_dict` wrote. Raises SpecMismatch for other fields or unequal lengths."""
        names = [field.name for field in fields(cls)]
        if set(data) != set(names) or len({len(values) for values in data.values()}) != 1:
            raise SpecMismatch(
                f"unreadable statistics: fields {sorted(data)} where {names} are needed, "
                f"all of one length. Compute them again from the data set."
            )
        return cls(**{name: tuple(float(value) for value in data[name]) for name in names})


def compute_statistics(
    data: EpisodeStore | Sequence[DataPart],
    cache: DecodedCache | None = None,
    actions: ActionFilter | None = None,
) -> dict[str, VectorStatistics]:
    """Statistics by name for "action" and each observation that is a vector, as "proprio".

    Of the actions as `actions` changes them, where it is given.
    Raises StoreError where there are no episodes, SpecMismatch where the parts' specs differ.
    """
    parts = parts_of(data)
    spec = parts[0].store.spec
    # In canonical order, so that sums round the same for the same data.
    episodes = [(part.store, index) for part in parts for index in part.in_order()]
    vectors = [t for t in spec.tensors if not t.is_image]
    steps = load_vectors(vectors, episodes, cache or DecodedCache.default(), _RAM_BYTES, actions)
    return {name: _of_steps(values) for name, values in steps.items()}


def _of_steps(values: np.ndarray) -> VectorStatistics:
    """values (N, D)."""
    count = len(values)
    mean = np.add.reduce([block.sum(axis=0) for block in _blocks(values)]) / count
    squares = [((block - mean) ** 2).sum(axis=0) for block in _blocks(values)]
    std = np.sqrt(np.add.reduce(squares) / count)
    low, q01, q99, high = _quantiles(values, (0.0, 0.01, 0.99, 1.0))
    return VectorStatistics(*(tuple(row.tolist()) for row in (mean, std, low, high, q01, q99)))


def _blocks(values: np.ndarray) -> Iterator[np.ndarray]:
    """Some rows at a time, as float64."""
    return (
        values[start : start + _BLOCK].astype(np.float64) for start in range(0, len(values), _BLOCK)
    )


def _quantiles(values: np.ndarray, shares: Sequence[float]) -> list[np.ndarray]:
    """Linear between the neighbouring ordered values, as np.quantile has them."""
    last = len(values) - 1
    places = [share * last for share in shares]
    ranks = [rank for place in places for rank in (int(place), min(int(place) + 1, last))]
    ordered = np.empty((len(ranks), values.shape[1]))
    # Not np.quantile of all columns at once, which copies all.
    for column, wanted in zip(values.T, ordered.T, strict=True):
        wanted[:] = np.partition(column, ranks)[ranks]
    return [
        below + (above - below) * (place - int(place))
        for place, below, above in zip(places, ordered[::2], ordered[1::2], strict=True)
    ]
