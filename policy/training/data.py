"""What a training learns from: stores opened, episodes chosen, checked and held out.

Everything that is wrong with the data is said here, before anything is trained or written.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loopdit.datasets.action_filters import ActionFilter, action_filter
from loopdit.datasets.decoded_cache import DecodedCache
from loopdit.datasets.decoding_ahead import decode_ahead, vectors_to_decode
from loopdit.datasets.episode_filter import choose_episodes, hold_out, short_episodes
from loopdit.datasets.mixing import DataPart, parts_of
from loopdit.datasets.part_check import check_parts
from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.statistics import VectorStatistics, compute_statistics
from loopdit.datasets.store import EpisodeStore
from loopdit.datasets.windows import WindowSampler
from loopdit.errors import ObservationError, StoreError
from loopdit.policy.encoders.vocabulary import NO_INSTRUCTION
from loopdit.policy.looped_dit_config import LoopedDiTConfig
from loopdit.policy.training.config import TrainConfig
from loopdit.policy.training.decoding import with_progress
from loopdit.policy.training.in_flight import extra_horizon
from loopdit.policy.training.processes import local_part
from loopdit.policy.training.validation import Validation

_NAMED = 3  # short episodes in a message
_DECODERS = 8  # threads: for far away data more than there are cores


@dataclass(frozen=True)
class TrainingData:
    """The parts to train on and to validate on (none, perhaps), and what to say of them."""

    training: list[DataPart]
    validation: list[DataPart]
    cache: DecodedCache
    notes: list[str]
    config: TrainConfig
    actions: ActionFilter | None = None

    @property
    def spec(self) -> PolicySpec:
        """Of all of them."""
        return self.training[0].store.spec

    @property
    def policy(self) -> LoopedDiTConfig:
        """The policy's options, with the instructions of the data where it is told its task."""
        wanted = self.config.policy
        if wanted.instruction == NO_INSTRUCTION or wanted.instructions:
            return wanted
        said = {
            part.store.episodes[index].instruction
            for part in self.training
            for index in part.episodes
        }
        return replace(wanted, instructions=sorted(said))

    @property
    def stores(self) -> list[EpisodeStore]:
        """In the order they were given."""
        return [part.store for part in self.training]

    @property
    def episodes(self) -> int:
        """How many are trained on."""
        return sum(len(part.episodes) for part in self.training)

    def sampler(self) -> WindowSampler:
        """The windows to train on."""
        return self._sampler(self.training, self.config.batch_size, self.config.seed)

    def validation_on(self, mean_action: Sequence[float]) -> Validation | None:
        """The windows to validate on; None where nothing is held out."""
        if not self.validation:
            return None
        windows = sum(
            part.store.episodes[index].length for part in self.validation for index in part.episodes
        )
        size = Validation.batch_size(windows)
        sampler = self._sampler(self.validation, size, 0)
        self.decode(sampler, range(Validation.batches(windows)))
        return Validation(sampler, mean_action)

    def decode(self, sampler: WindowSampler, steps: range) -> None:
        """Into the cache, now, what these steps would otherwise wait for one by one."""
        rank, beside = local_part()
        with_progress(
            "decoding frames into the cache",
            lambda tell: sampler.prepare(tell, _DECODERS, steps, (rank, beside)),
            shown=rank == 0,
        )

    def statistics(self) -> dict[str, VectorStatistics]:
        """Of what is trained on, actions as they are after the filters."""
        return compute_statistics(self.training, self.cache, self.actions)

    def digest(self) -> str:
        """Changes with any episode of any store, or with their order."""
        digests = [store.digest() for store in self.stores]
        if len(digests) == 1:
            return digests[0]
        return hashlib.sha256("\n".join(digests).encode()).hexdigest()[:16]

    def provenance(self) -> dict[str, Any]:
        """What was learned from, for the checkpoint. `data_seeds` [first, last] only where episodes
        have seeds: an evaluation on one of them is refused."""
        seeds = [r.seed for store in self.stores for r in store.episodes if r.seed is not None]
        found: dict[str, Any] = {"data_digest": self.digest(), "episodes": self.episodes}
        if seeds:
            found["data_seeds"] = [min(seeds), max(seeds)]
        if len(self.stores) == 1:
            return found | {"data_provenance": self.stores[0].provenance}
        each = [
            {
                "store": Path(str(part.store.path)).name,
                "digest": part.store.digest(),
                "episodes": len(part.episodes),
                "weight": part.weight,
                "provenance": part.store.provenance,
            }
            for part in self.training
        ]
        return found | {"data_provenance": {"stores": each}}

    def _sampler(self, parts: list[DataPart], batch_size: int, seed: int) -> WindowSampler:
        policy = self.config.policy
        return WindowSampler(
            parts,
            policy.action_horizon + extra_horizon(policy),
            batch_size,
            seed,
            policy.history,
            self.cache,
            actions=self.actions,
            in_flight=policy.in_flight,
        )


def open_data(config: TrainConfig) -> TrainingData:
    """Open, choose, hold out, check. Raises StoreError, SpecMismatch or ConfigError, naming the
    store, the episode and the key."""
    cache = _cache(config)
    notes: list[str] = []
    training: list[DataPart] = []
    validation: list[DataPart] = []
    for number, path in enumerate(config.stores):
        store = EpisodeStore.open(path)
        weight = config.weights[number] if config.weights else None
        everything = DataPart(store, range(len(store.episodes)), weight)
        parts_of([everything])  # says that a store is empty better than a filter can
        chosen = choose_episodes(store, config.filter)
        if len(chosen.episodes) < len(store.episodes):
            notes.append(chosen.sentence)
        kept = _long_enough(store, chosen.episodes, config, notes)
        trained, held = _held_out(store, kept, config, notes)
        training.append(DataPart(store, trained, weight))
        if held:
            validation.append(DataPart(store, held, weight))
    parts = [*training, *validation]
    far = vectors_to_decode(parts, cache)
    with_progress(
        "reading vectors from afar",
        lambda tell: decode_ahead(cache, far, tell, _DECODERS),
        shown=local_part()[0] == 0,
    )
    check_parts(parts, cache)
    actions = action_filter(training[0].store.spec, config.actions)
    data = TrainingData(training, validation, cache, notes, config, actions)
    return replace(data, validation=_told(validation, data.policy, notes))


def _cache(config: TrainConfig) -> DecodedCache:
    default = DecodedCache.default()
    return DecodedCache(
        Path(config.cache) if config.cache else default.folder,
        int(config.cache_gib * 2**30) or default.max_bytes,
    )


def _long_enough(
    store: EpisodeStore, episodes: list[int], config: TrainConfig, notes: list[str]
) -> list[int]:
    """Those that are not dropped for being shorter than a chunk. Raises StoreError."""
    horizon = config.policy.action_horizon
    short = short_episodes([DataPart(store, episodes)], horizon)
    if not short:
        return episodes
    named = "; ".join(str(episode) for episode in short[:_NAMED])
    more = f"; {len(short) - _NAMED} more" if len(short) > _NAMED else ""
    told = f"shorter than a chunk of {horizon} actions: {named}{more}"
    if config.short_episodes == "refuse":
        raise StoreError(
            f"{told}. Use short_episodes=pad or drop, or a smaller policy.action_horizon."
        )
    if config.short_episodes == "pad":
        notes.append(f"{told}. Their last action is repeated (short_episodes=pad)")
        return episodes
    notes.append(f"{told}. They are left out (short_episodes=drop)")
    kept = [index for index in episodes if store.episodes[index].length >= horizon]
    if not kept:
        raise StoreError(
            f"no episode of {store.path} has a chunk of {horizon} actions. Use short_episodes=pad, "
            f"or a smaller policy.action_horizon."
        )
    return kept


def _told(validation: list[DataPart], policy: LoopedDiTConfig, notes: list[str]) -> list[DataPart]:
    """Without the held-out episodes whose task a policy that is told its task cannot be told,
    because nothing that is trained on has it."""
    vocabulary = policy.vocabulary
    if vocabulary is None:
        return validation
    kept: list[DataPart] = []
    for part in validation:
        records = {index: part.store.episodes[index] for index in part.episodes}
        unknown: dict[str, ObservationError] = {}
        for said in {record.instruction: None for record in records.values()}:
            try:
                vocabulary.told(policy.instruction, said)
            except ObservationError as error:
                unknown[said] = error
        episodes = [i for i, record in records.items() if record.instruction not in unknown]
        if unknown:
            notes.append(
                f"{len(records) - len(episodes)} of {len(records)} held-out episodes of "
                f"{part.store.path} are not validated on: {next(iter(unknown.values()))}"
            )
        if episodes:
            kept.append(replace(part, episodes=episodes))
    return kept


def _held_out(
    store: EpisodeStore, episodes: list[int], config: TrainConfig, notes: list[str]
) -> tuple[list[int], list[int]]:
    if config.validation * len(episodes) < 1:
        if config.validation:
            enough = math.ceil(100 / len(episodes)) / 100
            notes.append(
                f"{config.validation:.0%} of {len(episodes)} episodes of {store.path} is less than "
                f"one: none is held out"
                + (f" (validation={enough:g} holds some out)" if enough < 1 else "")
            )
        return episodes, []
    return hold_out(store, config.validation, config.seed, episodes)
