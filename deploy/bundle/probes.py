"""Observations and noise to compare and time a policy on: recorded ones, or seeded synthetic ones.

Shapes: N probes, O observed steps where the policy has history, H horizon, A action dim. Everything
is a function of its seed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from loopdit.datasets.spec import COMMITTED, PolicySpec, TensorSpec
from loopdit.datasets.store import EpisodeStore
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.errors import StoreError
from loopdit.policy.encoders.absent_cameras import AVAILABLE
from loopdit.policy.encoders.vocabulary import INSTRUCTION


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


Tell = Callable[[str], np.ndarray | None]  # what a policy is given for an instruction


def make_probes(
    spec: PolicySpec,
    horizon: int,
    count: int,
    seed: int,
    data: str = "",
    tell: Tell = lambda instruction: None,
    instructions: Sequence[str] = (),
) -> Probes:
    """`count` probes: frames of the episode store `data`, or synthetic ones where it is "".

    `tell` says what the policy is given for an instruction: those of the episodes, or for synthetic
    observations `instructions` in turn.
    Raises StoreError and SpecMismatch for a store that cannot be read or records something else.
    """
    generator = np.random.default_rng(seed)
    if data:
        observations, said, source = _recorded(spec, count, generator, data)
    else:
        tensors = spec.without_committed().observations
        observations = {t.name: _synthetic(t, count, generator) for t in tensors}
        said = [instructions[i % len(instructions)] if instructions else "" for i in range(count)]
        source = "synthetic observations (no data= was given)"
    if spec.committed is not None:
        observations[COMMITTED] = _in_flight(spec, count, generator)
    if spec.optional:  # one camera in turn is missing from every other probe
        cameras = len(spec.cameras)
        here = np.ones((count, cameras), bool)
        odd = np.arange(1, count, 2)
        here[odd, odd // 2 % cameras] = cameras == 1
        observations[AVAILABLE] = here
    told = [tell(instruction) for instruction in said]
    given = [one for one in told if one is not None]
    if given:
        observations[INSTRUCTION] = np.stack(given)
    noise = generator.standard_normal((count, horizon, spec.action.shape[0]), dtype=np.float32)
    return Probes(observations, noise, source)


def bundle_probes(bundle: Bundle, count: int, seed: int, data: str = "") -> Probes:
    """`make_probes` for a bundle, told what its policy is told."""
    told, known = bundle.manifest.told, bundle.manifest.instructions
    return make_probes(bundle.spec, bundle.horizon, count, seed, data, told, known)


def _recorded(
    spec: PolicySpec, count: int, generator: np.random.Generator, data: str
) -> tuple[dict[str, np.ndarray], list[str], str]:
    """Observations, their episodes' instructions, and where they come from."""
    store = EpisodeStore.open(data)
    spec.recorded.require_equal(
        store.spec,
        "the policy",
        f"the store {data}",
        "Name the data it was trained on, or leave data= out for synthetic observations.",
    )
    if not store.episodes:
        raise StoreError(f"the store {data} has no episodes. Record some: policy-collect.")
    tensors = spec.without_committed().observations
    frames: list[dict[str, np.ndarray]] = []
    said: list[str] = []
    for _ in range(count):
        episode = int(generator.integers(len(store.episodes)))
        step = int(generator.integers(store.episodes[episode].length))
        arrays = store.arrays(episode)
        # The steps before it; before the episode's first, that one again, as in training.
        steps = np.maximum(np.arange(step - spec.history + 1, step + 1), 0)
        rows = steps if spec.history > 1 else step
        frames.append({t.name: np.array(arrays[t.name][rows]) for t in tensors})
        said.append(store.episodes[episode].instruction)
    stacked = {t.name: np.stack([frame[t.name] for frame in frames]) for t in tensors}
    return stacked, said, f"recorded observations from {data}"


def _in_flight(spec: PolicySpec, count: int, generator: np.random.Generator) -> np.ndarray:
    """(count, D, A + 1): none up to all of the actions that may be in flight."""
    most = spec.max_committed
    action = replace(spec.action, shape=(most, *spec.action.shape))
    there = np.arange(most) < generator.integers(0, most, count, endpoint=True)[:, None]
    committed = _synthetic(action, count, generator) * there[..., None]
    return np.concatenate([committed, there[..., None]], axis=-1, dtype=np.float32)


def _synthetic(tensor: TensorSpec, count: int, generator: np.random.Generator) -> np.ndarray:
    shape = (count, *tensor.shape)
    if np.issubdtype(np.dtype(tensor.dtype), np.integer):
        limits = np.iinfo(tensor.dtype)
        return generator.integers(limits.min, limits.max, shape, tensor.dtype, endpoint=True)
    if tensor.low and tensor.high and np.isfinite([*tensor.low, *tensor.high]).all():
        return generator.uniform(tensor.low, tensor.high, shape).astype(tensor.dtype)
    return generator.standard_normal(shape).astype(tensor.dtype)
