"""New stores of the episodes of others: what merge, split and a change of encoding have in common.

Episodes keep their record, extras and metadata; the new store's provenance has those of its
sources. A source episode that is not what its record says is refused, because the copy would get
a digest that vouches for the damage.
"""

import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopdit.datasets.episode_check import require_whole
from loopdit.datasets.formats.mapped_episode import FOREIGN
from loopdit.datasets.formats.new_target import new_target
from loopdit.datasets.remote_store import is_address
from loopdit.datasets.store import EpisodeStore, EpisodeWriter
from loopdit.errors import ConfigError, StoreError
from loopdit.machine import machine_and_versions
from loopdit.progress import Progress

REFUSE, DROP, KEEP = DUPLICATES = ("refuse", "drop", "keep")


@dataclass(frozen=True)
class Chosen:
    """Some episodes of a store, by their indices."""

    store: EpisodeStore
    episodes: Sequence[int]


def require_one_spec(stores: Sequence[EpisodeStore]) -> None:
    """Raise SpecMismatch naming each field in which a store's spec differs from the first's."""
    first = stores[0]
    for other in stores[1:]:
        first.spec.require_equal(
            other.spec,
            f"the spec of {first.path}",
            f"the spec of {other.path}",
            "Only stores with the same cameras, proprio, actions and rate can be one; training "
            "takes several stores beside each other only where they agree, too.",
        )


def without_duplicates(stores: Sequence[EpisodeStore], duplicates: str) -> list[Chosen]:
    """The episodes of all stores. The second of two with one digest is refused, dropped or kept.

    Raises StoreError for one that is refused, ConfigError for an unknown choice.
    """
    if duplicates not in DUPLICATES:
        raise ConfigError(f"duplicates={duplicates} is none of {', '.join(DUPLICATES)}.")
    seen: dict[str, str] = {}
    chosen: list[Chosen] = []
    for store in stores:
        kept: list[int] = []
        for index, record in enumerate(store.episodes):
            here = f"{record.id} of {store.path}"
            if record.digest in seen and duplicates == REFUSE:
                raise StoreError(
                    f"{here} has the same content as {seen[record.digest]} (digest "
                    f"{record.digest}). Leave the second of such episodes out with "
                    f"duplicates=drop, or take both with duplicates=keep."
                )
            if record.digest not in seen or duplicates == KEEP:
                kept.append(index)
            seen.setdefault(record.digest, here)
        chosen.append(Chosen(store, kept))
    return chosen


def write_copy(
    target: str, chosen: Sequence[Chosen], provenance: Mapping[str, Any], frames: str = ""
) -> int:
    """Write a new store of the chosen episodes at `target`; how many they are.

    On the local disk it is there whole or not at all, at a URL episode by episode. `frames` is
    the new store's encoding, empty for that of the first. Raises StoreError where something
    exists, the disk is full, or an episode of a source is damaged.
    """
    first = chosen[0].store
    total = sum(len(one.episodes) for one in chosen)
    with _new_store(target) as path, Progress("copying", total) as progress:
        writer = EpisodeWriter.create(path, first.spec, provenance, frames=frames or first.frames)
        done = 0
        for one in chosen:
            for index in one.episodes:
                require_whole(one.store, index)
                writer.copy(one.store, index)
                done += 1
                progress.update(done, f"{done}/{total} episodes")
    return total


def provenance_of(made_by: str, chosen: Sequence[Chosen], settings: Any) -> dict[str, Any]:
    """What a copy says of itself, and what its sources said of theirs."""
    shared = [one.store.provenance.get(FOREIGN) for one in chosen]
    # What an exporter needs to give data back to its former format, where all came from one.
    foreign = {FOREIGN: shared[0]} if shared[0] and shared.count(shared[0]) == len(shared) else {}
    return {
        **foreign,
        "made_by": made_by,
        "settings": settings,
        "sources": [
            {
                "path": Path(str(one.store.path)).name,  # not the folders above: they name people
                "digest": one.store.digest(),
                "episodes": len(one.episodes),
                "provenance": one.store.provenance,
            }
            for one in chosen
        ],
        "made_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **machine_and_versions(),
    }


@contextmanager
def _new_store(target: str) -> Generator[str]:
    if is_address(target):
        yield target
        return
    with new_target(Path(target)) as path:
        yield str(path)
