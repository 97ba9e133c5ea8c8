"""Which episodes of a store are trained on: filters, a held-out share, the ones too short.

An episode is chosen or not by what it is, never by its place in the store: adding episodes moves
none of the others from training to validation.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from loopdit.command import option
from loopdit.datasets.episode import EpisodeRecord
from loopdit.datasets.mixing import DataPart
from loopdit.datasets.store import EpisodeStore
from loopdit.errors import ConfigError, StoreError


@dataclass(frozen=True)
class EpisodeFilter:
    """What an episode must be like. The defaults keep all."""

    success: bool = option(False, "only episodes that are known to have succeeded")
    contains: str = option("", "only episodes whose instruction has this text, in any case")
    min_steps: int = option(0, "only episodes of at least so many steps")
    max_steps: int = option(0, "only episodes of at most so many steps; 0 = no limit")
    limit: int = option(0, "the first so many of those, by seed; 0 = all")

    def __post_init__(self) -> None:
        for name in ("min_steps", "max_steps", "limit"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}={getattr(self, name)} must not be negative.")
        if 0 < self.max_steps < self.min_steps:
            raise ConfigError(
                f"no episode has at least min_steps={self.min_steps} and at most "
                f"max_steps={self.max_steps} steps. Raise max_steps."
            )


@dataclass(frozen=True)
class Chosen:
    """Indices of the chosen episodes, in canonical order, and one sentence for the user."""

    episodes: list[int]
    sentence: str


def choose_episodes(store: EpisodeStore, wanted: EpisodeFilter) -> Chosen:
    """The episodes of `store` that pass. Raises StoreError if none does, saying which test failed
    how many."""
    tests = [
        (wanted.success, "known to have succeeded", _succeeded),
        (bool(wanted.contains), f"with {wanted.contains!r} in the instruction", _says),
        (wanted.min_steps > 0, f"of {wanted.min_steps} steps or more", _long_enough),
        (wanted.max_steps > 0, f"of {wanted.max_steps} steps or fewer", _short_enough),
    ]
    used = [(phrase, test) for is_used, phrase, test in tests if is_used]
    passing = [
        index
        for index in store.canonical_order()
        if all(test(store.episodes[index], wanted) for _, test in used)
    ]
    total = len(store.episodes)
    if not passing:
        counts = [
            f"{sum(test(record, wanted) for record in store.episodes)} are {phrase}"
            for phrase, test in used
        ]
        unknown = sum(record.success is None for record in store.episodes)
        if wanted.success and unknown:
            counts.append(f"of {unknown} nobody knows whether they succeeded")
        raise StoreError(
            f"the filter leaves none of the {total} episodes of {store.path}: "
            f"{', '.join(counts) or 'it is empty'}. Loosen it."
        )
    kept = passing[: wanted.limit] if wanted.limit else passing
    phrases = [phrase for phrase, _ in used]
    if len(kept) < len(passing):
        phrases.append(f"the first {len(kept)} of {len(passing)}")
    described = ", ".join(phrases) or "no filter"
    return Chosen(kept, f"{len(kept)} of {total} episodes of {store.path}: {described}")


def hold_out(
    store: EpisodeStore, share: float, seed: int, episodes: Sequence[int] | None = None
) -> tuple[list[int], list[int]]:
    """(episodes to train on, episodes to validate on), by a hash of each one's content.

    About `share` of them, from 0 up to below 1, are held out, above 0 at least one. Equal
    episodes are on one side. Raises ConfigError for another share, StoreError where nothing would
    be left to train on.
    """
    if not 0 <= share < 1:
        raise ConfigError(f"a share of {share} cannot be held out. Use 0 up to below 1.")
    indices = list(range(len(store.episodes)) if episodes is None else episodes)
    if not share:
        return indices, []
    places = {index: _place(store.episodes[index].digest, seed) for index in indices}
    # Of few episodes maybe none falls below: then the lowest, which more episodes seldom change.
    border = max(share, min(places.values(), default=0.0))
    held = [index for index in indices if places[index] <= border]
    training = [index for index in indices if places[index] > border]
    if not training:
        raise StoreError(
            f"holding out {share:.0%} of the {len(indices)} episodes of {store.path} leaves none "
            f"to train on. Record more, or hold out nothing: 0."
        )
    return training, held


@dataclass(frozen=True)
class ShortEpisode:
    """An episode that ends before one chunk of actions does."""

    store: str
    id: str
    length: int

    def __str__(self) -> str:
        return f"{self.id} of {self.store} has {self.length} steps"


def short_episodes(parts: Iterable[DataPart], horizon: int) -> list[ShortEpisode]:
    """The episodes of fewer steps than a chunk has actions: no window of theirs is without padding.

    Whether they are padded, dropped (`min_steps`) or refused is the caller's to say.
    """
    return [
        ShortEpisode(str(part.store.path), record.id, record.length)
        for part in parts
        for record in (part.store.episodes[index] for index in part.in_order())
        if record.length < horizon
    ]


def _succeeded(record: EpisodeRecord, wanted: EpisodeFilter) -> bool:
    return record.success is True


def _says(record: EpisodeRecord, wanted: EpisodeFilter) -> bool:
    return wanted.contains.casefold() in record.instruction.casefold()


def _long_enough(record: EpisodeRecord, wanted: EpisodeFilter) -> bool:
    return record.length >= wanted.min_steps


def _short_enough(record: EpisodeRecord, wanted: EpisodeFilter) -> bool:
    return record.length <= wanted.max_steps


def _place(digest: str, seed: int) -> float:
    """Where in [0, 1) an episode falls."""
    content = hashlib.sha256(f"{seed} {digest}".encode()).digest()
    return int.from_bytes(content[:8], "big") / 2**64
