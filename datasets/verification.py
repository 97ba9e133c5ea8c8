"""Whether a store is as it was written, and what to keep of one that is not.

`verify` reads every byte of every listed episode and holds it against the checksums, the digest
and the list. What writers that were killed left behind is told, and is no damage. `repair` sets
aside what is damaged, so that everything else can be read, and loses nothing: what it takes off
the list lies in `quarantine/`.
"""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from loopdit.datasets.damaged_list import DamagedLine, ReadList, leftovers, read_list, relist
from loopdit.datasets.episode import EpisodeRecord
from loopdit.datasets.episode_check import check_episode
from loopdit.datasets.metadata_check import check_metadata_files
from loopdit.datasets.store import EpisodeStore, EpisodeWriter, files_at, read_root
from loopdit.datasets.store_files import EPISODES
from loopdit.datasets.store_root import is_root_as_written
from loopdit.datasets.tensor_files import Damage
from loopdit.datasets.zarr_files import METADATA, group_metadata
from loopdit.errors import StoreError
from loopdit.machine import usable_cores

Report = Callable[[int, int], None]

_ROOT_ALTERED = f"{METADATA} is not what was written"


@dataclass(frozen=True)
class Problem:
    """One thing wrong with one episode. `key` is that of an array, or empty for the episode."""

    episode: int
    id: str
    key: str
    problem: str


@dataclass(frozen=True)
class Verified:
    """What `verify` found. `root` are what is wrong with the store's own metadata, which names
    its cameras, labels, units and rate; `leftovers` are folders that no line names."""

    path: str
    episodes: int
    steps: int
    problems: list[Problem]
    lines: list[DamagedLine]
    root: list[str]
    leftovers: list[str]

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.problems or self.lines or self.root)

    @property
    def damaged(self) -> list[str]:
        """The ids of the damaged episodes."""
        return list(dict.fromkeys(problem.id for problem in self.problems))


@dataclass(frozen=True)
class Repaired:
    """What `repair` did: `before` it found that; it made lines for `relisted`, set aside
    `quarantined`, removed `swept`."""

    before: Verified
    episodes: int
    relisted: list[str] = field(default_factory=list[str])
    quarantined: list[str] = field(default_factory=list[str])
    swept: list[str] = field(default_factory=list[str])


def verify(path: str, report: Report = lambda done, total: None) -> Verified:
    """Read everything. Raises StoreError or SpecMismatch for what is no store at all, or where
    its root cannot be read: there is then nothing to hold the episodes against."""
    store, found_list = _open(path)
    total = len(store.episodes)
    problems: list[Problem] = []
    # Hashing and decoding let other threads run, so episodes are checked side by side.
    with ThreadPoolExecutor(max_workers=usable_cores()) as pool:
        found = pool.map(lambda index: _problems(store, index), range(total))
        for index, (record, wrong) in enumerate(zip(store.episodes, found, strict=True)):
            problems += [Problem(index, record.id, key, problem) for key, problem in wrong]
            report(index + 1, total)
    return Verified(
        path=str(store.path),
        episodes=total,
        steps=sum(record.length for record in store.episodes),
        problems=problems,
        lines=found_list.damaged,
        root=_root_problems(store),
        leftovers=leftovers(store.files, _ids(store.episodes) | set(found_list.lost)),
    )


def repair(path: str, report: Report = lambda done, total: None) -> Repaired:
    """Make every listed episode a whole one. Doing it again finds nothing to do.

    Whatever stops it, the next repair goes on: lines are made anew first, then what is damaged is
    set aside, then leftovers of killed writers are removed. Raises what `verify` raises, and
    StoreError where the store cannot be written.
    """
    store, found_list = _open(path)
    relisted = _relisted(store) if found_list.damaged or found_list.torn else []
    found = verify(path, report)
    if _ROOT_ALTERED in found.root and len(found.damaged) == found.episodes > 0:
        raise StoreError(
            f"{found.path}: {_ROOT_ALTERED}, and no episode fits what it says. Restore that file "
            f"from a copy, then repair again: the episodes may well be whole."
        )
    writer = EpisodeWriter.resume(path, store.spec)  # sweeps
    if found.damaged:
        writer.drop(found.damaged)
    left = EpisodeStore.open(path)
    after = set(leftovers(left.files, _ids(left.episodes)))
    return Repaired(
        before=replace(found, lines=found_list.damaged),
        episodes=len(left.episodes),
        relisted=[id for id in relisted if id not in found.damaged],
        quarantined=found.damaged,
        swept=[name for name in found.leftovers if name not in after],
    )


def _root_problems(store: EpisodeStore) -> list[str]:
    problems: list[str] = []
    root, group = store.files.read(METADATA), store.files.read(f"{EPISODES}/{METADATA}")
    if root is None or not is_root_as_written(root.tobytes()):
        problems.append(_ROOT_ALTERED)
    try:
        same = group is not None and json.loads(group.tobytes()) == json.loads(group_metadata({}))
    except ValueError:
        same = False
    if not same:
        problems.append(f"{EPISODES}/{METADATA} is not what was written")
    return problems


def _problems(store: EpisodeStore, index: int) -> list[tuple[str, str]]:
    """As (key, what is wrong)."""
    try:
        return check_episode(store, index) or check_metadata_files(store, index)
    except Damage as error:
        return [("", str(error))]


def _open(path: str) -> tuple[EpisodeStore, ReadList]:
    """The store of what can be read of its list, and all that was found there."""
    files = files_at(path)
    root = read_root(files)
    found = read_list(files)
    store = EpisodeStore(files.path, root.spec, root.provenance, found.records, root.frames, files)
    return store, found


def _relisted(store: EpisodeStore) -> list[str]:
    try:
        return relist(store.files)
    except OSError as error:
        raise StoreError(
            f"cannot write the list of {store.path}: {error.strerror or error}. "
            f"Mend that, then repair again: nothing was lost."
        ) from error


def _ids(records: list[EpisodeRecord]) -> set[str]:
    return {record.id for record in records}
