"""The range and spread of each vector of a data set: what a policy's normaliser is made of.

Over all steps of all episodes, each element by itself, in raw units. Images have none.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from loopdit.datasets.store import ACTION, EpisodeStore
from loopdit.errors import SpecMismatch, StoreError


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


def compute_statistics(store: EpisodeStore) -> dict[str, VectorStatistics]:
    """Statistics by name for "action" and each observation that is a vector, as "proprio".

    Raises StoreError for a store without episodes.
    """
    if not store.episodes:
        raise StoreError(f"the store {store.path} has no episodes. Record some: policy-collect.")
    vectors = [t.name for t in store.spec.observations if not t.is_image]
    steps: dict[str, list[np.ndarray]] = {name: [] for name in [*vectors, ACTION]}
    for index in store.canonical_order():  # so that sums round the same for the same data
        arrays = store.arrays(index)
        for name, parts in steps.items():
            parts.append(np.array(arrays[name], dtype=np.float64))
    return {name: _of_steps(np.concatenate(parts)) for name, parts in steps.items()}


def _of_steps(values: np.ndarray) -> VectorStatistics:
    """values (N, D) float64."""
    low, q01, q99, high = np.quantile(values, [0.0, 0.01, 0.99, 1.0], axis=0)
    return VectorStatistics(
        *(
            tuple(row.tolist())
            for row in (values.mean(axis=0), values.std(axis=0), low, high, q01, q99)
        )
    )
