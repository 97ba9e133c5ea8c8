"""Observations and noise to compare and time a policy on: recorded ones, or seeded synthetic ones.

Shapes: N probes, O observed steps where the policy has history, H horizon, A action dim. Everything
is a function of its seed.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from loopdit.datasets.spec import PolicySpec, TensorSpec
from loopdit.datasets.store import EpisodeStore
from loopdit.errors import StoreError


@dataclass(frozen=True)
class Probes:
    """N observations, each tensor (N, ...), with N starting noises (N, H, A) float32.

    `source` says in words where the observations come from.
    """

    observations: Mapping[str, np.ndarray]
    noise: np.ndarray
    source: str

    def __len__(self) -> int:
        return len(self.noise)

    def batch(self, index: int, size: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Observations and noise of the `index`-th group of `size` probes, going round."""
        chosen = (np.arange(size) + index * size) % len(self)
        observations = {name: value[chosen] for name, value in self.observations.items()}
        return observations, self.noise[chosen]


def make_probes(spec: PolicySpec, horizon: int, count: int, seed: int, data: str = "") -> Probes:
    """`count` probes: frames of the episode store `data`, or synthetic ones where it is "".

    Raises StoreError and SpecMismatch for a store that cannot be read or records something else.
    """
    generator = np.random.default_rng(seed)
    if data:
        observations, source = _recorded(spec, count, generator, data)
    else:
        observations = {t.name: _synthetic(t, count, generator) for t in spec.observations}
        source = "synthetic observations (no data= was given)"
    noise = generator.standard_normal((count, horizon, spec.action.shape[0]), dtype=np.float32)
    return Probes(observations, noise, source)


def _recorded(
    spec: PolicySpec, count: int, generator: np.random.Generator, data: str
) -> tuple[dict[str, np.ndarray], str]:
    store = EpisodeStore.open(data)
    spec.without_history().require_equal(
        store.spec,
        "the policy",
        f"the store {data}",
        "Name the data it was trained on, or leave data= out for synthetic observations.",
    )
    if not store.episodes:
        raise StoreError(f"the store {data} has no episodes. Record some: policy-collect.")
    frames: list[dict[str, np.ndarray]] = []
    for _ in range(count):
        episode = int(generator.integers(len(store.episodes)))
        step = int(generator.integers(store.episodes[episode].length))
        arrays = store.arrays(episode)
        # The steps before it; before the episode's first, that one again, as in training.
        steps = np.maximum(np.arange(step - spec.history + 1, step + 1), 0)
        rows = steps if spec.history > 1 else step
        frames.append({t.name: np.array(arrays[t.name][rows]) for t in spec.observations})
    stacked = {t.name: np.stack([frame[t.name] for frame in frames]) for t in spec.observations}
    return stacked, f"recorded observations from {data}"


def _synthetic(tensor: TensorSpec, count: int, generator: np.random.Generator) -> np.ndarray:
    shape = (count, *tensor.shape)
    if np.issubdtype(np.dtype(tensor.dtype), np.integer):
        limits = np.iinfo(tensor.dtype)
        return generator.integers(limits.min, limits.max, shape, tensor.dtype, endpoint=True)
    if tensor.low and tensor.high and np.isfinite([*tensor.low, *tensor.high]).all():
        return generator.uniform(tensor.low, tensor.high, shape).astype(tensor.dtype)
    return generator.standard_normal(shape).astype(tensor.dtype)
