"""What every importer gives and every exporter takes: episodes under a foreign format's own keys.

T control steps. A key is the format's name for a thing: "observation/image_0" in RLDS,
"obs/agentview_image" in robomimic, "observation.images.top" in LeRobot. A reader knows its files
and nothing of our specs; `mapping` says which key is which camera, proprio or action; a writer
turns the same keys back into files.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from loopdit.datasets.formats.mapping import DataMapping

OURS = "loopdit"  # the key of `facts` under which a data set that we wrote keeps `Export.ours`


@dataclass(frozen=True)
class ForeignEpisode:
    """One episode as its format holds it, decoded.

    `where` names it in a message: the file and its number in it. `steps` are per-step arrays
    (T, ...) by key, frames (T, H, W, 3) uint8 RGB, scalars (T,). `texts` are strings by key, one
    for each step or one for the episode. `metadata` is what else the episode says of itself, as
    plain JSON types.
    """

    where: str
    steps: Mapping[str, np.ndarray]
    texts: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])


class ForeignData(Protocol):
    """A data set of a foreign format, opened for reading."""

    @property
    def path(self) -> Path:
        """The file or folder it was opened from."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What its user should know: a part that is not there, a thing that was guessed. May
        grow while episodes are read."""
        ...

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the data set says of itself (features, environment arguments, robot), plain JSON.

        It goes into the store's provenance, and from there back to the exporter. Under `OURS` it
        has the `Export.ours` that the data set was written with, where it was written by us.
        """
        ...

    def __len__(self) -> int:
        """How many episodes there are."""
        ...

    def episode(self, index: int) -> ForeignEpisode:
        """One episode, 0 <= index < len. Raises StoreError naming file, episode and key for what
        cannot be read; the others can still be read then.

        Asked for in rising order, so a reader may keep a file or a decoder open between two.
        """
        ...

    def suggested_mapping(self) -> DataMapping:
        """What its own metadata says of cameras, proprio, action, rate. Raises ConfigError naming
        what the metadata leaves open, except the rate, which may stay 0."""
        ...


@dataclass(frozen=True)
class Export:
    """What a writer is given. `episodes` may be run through once, and holds `count` of them.

    `facts` are what the data set's former format said of it, empty for our own recordings and
    for data of another format; `images` are the keys in `steps` that are camera frames, `names`
    the labels of a vector's elements by key, where known. `ours` is plain JSON to be kept where
    the format has room for it, and given back as `facts[OURS]`: the mapping that makes the same
    store of it again.
    """

    episodes: Iterator[ForeignEpisode]
    count: int
    rate_hz: float
    images: Sequence[str]
    names: Mapping[str, tuple[str, ...]]
    facts: Mapping[str, Any]
    ours: Mapping[str, Any] = field(default_factory=dict[str, Any])


class Format(Protocol):
    """A module of this folder that reads and writes one format."""

    NAME: str

    def recognizes(self, path: Path) -> bool:
        """Whether the file or folder looks like this format. Reads a few bytes only."""
        ...

    def open(self, path: Path) -> ForeignData:
        """Open for reading. Raises StoreError for what is missing or damaged."""
        ...

    def write(self, path: Path, export: Export) -> list[str]:
        """Write a new data set at `path`, whole or not at all; what the format could not hold,
        one phrase each. Raises StoreError where something exists or the disk is full."""
        ...

    def export_mapping(self, cameras: Sequence[str], extras: Sequence[str]) -> DataMapping:
        """The keys that this format's users expect for our cameras, proprio and action, used
        where the data did not come from this format; action_frame, rate and labels are left
        empty. `extras` are the keys of the extras, which are exported under their own names."""
        ...
