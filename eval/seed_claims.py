"""Which seeds a collection records, when others may be recording into the same store.

A seed is taken once: not where the store has an episode of it, and not where another collection
that is alive has claimed it. Claims are files in STORE/claims, each locked by its holder as long
as it lives, so that those of a killed one count for nothing. They are read and written under the
lock of the store's list.

At an address there are no locks: collections that run at once need seeds of their own there.
"""

import errno
import fcntl
import json
import os
from collections.abc import Collection, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import count as counted
from itertools import islice
from pathlib import Path
from typing import Protocol, Self
from uuid import uuid4

from loopdit.datasets.episode_index import locked_index
from loopdit.datasets.store import EpisodeStore
from loopdit.errors import StoreError

CLAIMS = "claims"


class Claims(Protocol):
    """The seeds that one collection has claimed in a store: `mine`, in the order of claiming."""

    mine: list[int]

    def take(self, first: int, count: int) -> list[int]:
        """The `count` lowest seeds from `first` on that are neither recorded nor claimed."""
        ...


def claims_on(store: Path | str) -> AbstractContextManager[Claims]:
    """Claims on the seeds of the store at a path or an address, for the time of the block."""
    return SeedClaims.hold(store) if isinstance(store, Path) else nullcontext(UnsharedSeeds(store))


class UnsharedSeeds:
    """See Claims: of a store at an address, into which nobody else records these seeds."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.mine: list[int] = []

    def take(self, first: int, count: int) -> list[int]:
        """See Claims."""
        recorded = {record.seed for record in EpisodeStore.open(self._address).episodes}
        seeds = _unused(first, count, recorded | set(self.mine))
        self.mine += seeds
        return seeds


class SeedClaims:
    """See Claims: of a store on a disk."""

    def __init__(self, root: Path, file: Path, descriptor: int) -> None:
        self._root = root
        self._file = file
        self._descriptor = descriptor
        self.mine: list[int] = []

    @classmethod
    @contextmanager
    def hold(cls, root: Path) -> Generator[Self]:
        """Claims that end with the block, or with the process."""
        folder = root / CLAIMS
        # Locked, or somebody might find the file made and its lock not yet taken.
        with _told(root), locked_index(root):
            folder.mkdir(exist_ok=True)
            file = folder / f"{uuid4().hex}.json"
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            yield cls(root, file, descriptor)
        finally:
            file.unlink(missing_ok=True)
            os.close(descriptor)

    def take(self, first: int, count: int) -> list[int]:
        """See Claims."""
        with _told(self._root), locked_index(self._root):
            recorded = {record.seed for record in EpisodeStore.open(self._root).episodes}
            seeds = _unused(first, count, recorded | set(self.mine) | self._claimed_by_others())
            text = json.dumps([*self.mine, *seeds]).encode()
            # Claims only grow: no shorter text follows.
            if os.pwrite(self._descriptor, text, 0) < len(text):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.mine += seeds
        return seeds

    def _claimed_by_others(self) -> set[int]:
        found: set[int] = set()
        for file in (self._root / CLAIMS).glob("*.json"):
            if file == self._file:
                continue
            descriptor = os.open(file, os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                found.update(json.loads(file.read_bytes() or "[]"))
            else:
                file.unlink()
            finally:
                os.close(descriptor)
        return found


@contextmanager
def _told(root: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"cannot claim seeds in {root / CLAIMS}: {error.strerror}. Mend that (free space on a "
            f"full disk), then go on with the same store: its episodes are complete."
        ) from error


def _unused(first: int, count: int, taken: Collection[int | None]) -> list[int]:
    return list(islice((seed for seed in counted(first) if seed not in taken), count))
