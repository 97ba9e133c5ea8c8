"""Where the files of a store lie, and what a store needs of that place.

A name is the path of a file below the store's root with `/` between its parts. What is in the
files is not known here.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from loopdit.datasets.episode import EpisodeRecord
from loopdit.datasets.zarr_files import Buffer

EPISODES = "episodes"
QUARANTINE = "quarantine"


class StoreFiles(Protocol):
    """The files of one store: on a disk or at an address. Can be pickled; holds nothing open.

    All raise StoreError, saying what to do, where the place fails (a full disk, no credentials).
    """

    @property
    def path(self) -> Path | str:
        """The root: a Path where the files can be mapped, otherwise the address."""
        ...

    def exists(self) -> bool:
        """Whether there is anything at the root."""
        ...

    def read(self, name: str) -> np.ndarray | None:
        """The bytes (N,) uint8 of a file, read-only, None where there is none: a memory map where
        the place allows it."""
        ...

    def create(self, files: Mapping[str, Buffer]) -> None:
        """Make a store of these files, whole or not at all. Raises StoreError where something
        exists."""
        ...

    def records(self) -> list[EpisodeRecord]:
        """The complete episodes, in the order of their appending."""
        ...

    def commit(self, files: Mapping[str, Buffer], outcome: Mapping[str, Any]) -> EpisodeRecord:
        """Add an episode of these files, whole or not at all: it is complete, listed and will
        stay when this returns. `outcome` is its record without the id."""
        ...

    def sweep(self) -> None:
        """Remove what killed writers left. Safe while others write."""
        ...

    def drop(self, ids: Collection[str]) -> None:
        """Take episodes off the list and put their files into `quarantine/`."""
        ...
