"""Demonstrations from any format to any other: what `policy-data convert` does.

    SOURCE            TARGET
    foreign data      episode store      an import, few episodes in memory at a time
    episode store     foreign data       an export (`to=` names the format)
    episode store     episode store      the same episodes, frames encoded anew, to or from a URL
    foreign data      foreign data       an import and an export, nothing stored between

Importing into a store goes on where an earlier run of the same conversion was stopped.
"""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from loopdit.datasets.episode import Episode
from loopdit.datasets.episode_check import require_whole
from loopdit.datasets.formats.conversion_options import STORE, check_options, check_target
from loopdit.datasets.formats.exporting import exporter
from loopdit.datasets.formats.importing import AUTO, ImportedData, import_data
from loopdit.datasets.formats.mapped_episode import FOREIGN
from loopdit.datasets.formats.new_target import new_target
from loopdit.datasets.formats.refusals import refusing
from loopdit.datasets.formats.registry import format_named, recognized_format
from loopdit.datasets.frame_codecs import JPEG, RAW
from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.store import EpisodeStore, EpisodeWriter
from loopdit.errors import ConfigError, StoreError
from loopdit.machine import machine_and_versions

SOURCE_INDEX = "source_index"  # in an imported episode's metadata: which of the source it is

Report = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Converted:
    """How much was converted. `lost` has a phrase for each thing that the target cannot hold,
    `notes` what else one should know; `skipped` the errors of the episodes that were left out.
    `already` were in the store from an earlier run, and are not counted in `episodes`. `imported`
    tells a foreign source."""

    episodes: int
    steps: int
    lost: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])
    skipped: list[str] = field(default_factory=list[str])
    already: int = 0
    imported: bool = False


def convert(
    source: str | Path,
    target: str | Path,
    format: str = AUTO,
    mapping: str = AUTO,
    to: str = "",
    frames: str = RAW,
    jpeg_quality: int = 95,
    codec: str = AUTO,
    rate_hz: float = 0.0,
    skip_bad: bool = False,
    progress: Report | None = None,
) -> Converted:
    """Convert `source` into a new data set at `target`.

    `format` is the source's (auto: by its content; "store" is ours), `to` the target's (empty or
    "store": ours). `mapping` and `rate_hz` say what an import's keys mean, where the data set does
    not; `frames` and `jpeg_quality` how a store encodes its frames, `codec` how LeRobot does
    (`write_lerobot`). A bad episode ends it with an
    error that names it; with `skip_bad` it is left out and named in the result. `progress` is
    called with the episodes done, all of them, and a note.

    Raises ConfigError or StoreError before anything is written for a source that cannot be read
    or a mapping that does not fit.
    """
    check_options(to, frames, codec)
    check_target(source, target)
    opened = _open(source, format, mapping, rate_hz, skip_bad)
    reading = _Reading(opened, skip_bad, progress or _say_nothing)
    if to not in ("", STORE):
        _into_format(reading, Path(target), to, codec)
    elif isinstance(opened, ImportedData) or "://" in str(target):
        _into_store(reading, target, frames, jpeg_quality)
    else:  # nothing could tell a copy that was cut short from a whole one
        with new_target(Path(target)) as aside:
            _into_store(reading, aside, frames, jpeg_quality)
    lost, notes = reading.lost, reading.notes
    if isinstance(opened, ImportedData):
        lost = [*opened.lost, *lost]
        notes = [*opened.told(), *notes]
    return Converted(
        reading.episodes,
        reading.steps,
        lost,
        notes,
        reading.skipped,
        reading.already,
        isinstance(opened, ImportedData),
    )


class _Source(Protocol):
    """Episodes by index, from a store or a foreign data set."""

    @property
    def spec(self) -> PolicySpec: ...
    @property
    def provenance(self) -> dict[str, Any]: ...
    def __len__(self) -> int: ...
    def episode(self, index: int) -> Episode: ...


@dataclass(frozen=True)
class _StoredEpisodes:
    store: EpisodeStore

    @property
    def spec(self) -> PolicySpec:
        return self.store.spec

    @property
    def provenance(self) -> dict[str, Any]:
        return self.store.provenance

    def __len__(self) -> int:
        return len(self.store.episodes)

    def episode(self, index: int) -> Episode:
        require_whole(self.store, index)
        return self.store.episode(index)


def _open(source: str | Path, format: str, mapping: str, rate_hz: float, skip_bad: bool) -> _Source:
    if format == STORE or (format == AUTO and _is_store(source)):
        for name, given in (("mapping", mapping != AUTO), ("rate_hz", bool(rate_hz))):
            if given:
                raise ConfigError(
                    f"{name}= says what a foreign data set's keys mean; {source} is an episode "
                    f"store, which says so itself. Leave it out."
                )
        return _StoredEpisodes(EpisodeStore.open(source))
    path = Path(source)
    if _is_store(source):
        raise ConfigError(
            f"{source} is an episode store, which format={format} is not. Leave it out."
        )
    with refusing(str(path), "Check the path, or fetch the data set again."):
        if not path.exists():
            raise StoreError(f"there is nothing at {path}. Check the path.")
        module = recognized_format(path) if format == AUTO else format_named(format)
        data = module.open(path)
    return import_data(data, module.NAME, mapping, rate_hz, skip_bad)


def _is_store(source: str | Path) -> bool:
    """Whether it says so itself. A URL can be nothing else: the formats are read from disk."""
    if "://" in str(source):
        return True
    try:
        return b'"loopdit-episodes"' in (Path(source) / "zarr.json").read_bytes()
    except OSError:
        return False


class _Reading:
    """The source's episodes one after the other, counted, the bad ones left out where allowed."""

    def __init__(self, source: _Source, skip_bad: bool, report: Report) -> None:
        self.source = source
        self.episodes = 0
        self.steps = 0
        self.already = 0
        self.lost: list[str] = []
        self.notes: list[str] = []
        self.skipped: list[str] = []
        self._skip_bad = skip_bad
        self._report = report

    def _ahead(self, indices: Sequence[int]) -> Generator[tuple[int, "Future[Episode]"]]:
        """Each index with its reading: one episode is decoded while the one before is written."""
        with ThreadPoolExecutor(max_workers=1) as pool:
            ahead: tuple[int, Future[Episode]] | None = None
            for index in indices:
                reading = pool.submit(self.source.episode, index)
                if ahead is not None:
                    yield ahead
                ahead = (index, reading)
            if ahead is not None:
                yield ahead

    def good(self, already: frozenset[int] = frozenset()) -> Generator[tuple[int, Episode]]:
        """(index in the source, episode) of each that is not among `already`.

        To be closed by whoever keeps it in a variable, which waits for the reading: the garbage
        collector may do that in zarr's own thread, which the reading may be waiting for.
        """
        total = len(self.source)
        with closing(self._ahead([i for i in range(total) if i not in already])) as ahead:
            for index, reading in ahead:
                try:
                    episode = reading.result()
                except StoreError as error:
                    if not self._skip_bad:
                        raise
                    self.skipped.append(str(error))
                    continue
                yield index, episode
                self.episodes += 1
                self.steps += len(episode.actions)
                skipped = f", {len(self.skipped)} left out" if self.skipped else ""
                self._report(index + 1, total, f"{self.steps} steps{skipped}")
        if self.episodes == 0 and not already:
            raise StoreError("no episode could be converted." + "".join(self.skipped[:1]))


def _into_store(reading: _Reading, target: str | Path, frames: str, jpeg_quality: int) -> None:
    source = reading.source
    imported = isinstance(source, ImportedData)
    already: frozenset[int] = frozenset()
    writer = None
    if imported and "://" not in str(target) and _is_store(target):
        already = _already_there(target, source, frames)
        writer = EpisodeWriter.resume(target, source.spec)
        reading.already = len(already)
    for index, episode in reading.good(already):
        if writer is None:  # only now: a source without one good episode makes no store
            provenance = {**source.provenance, **(_how_made() if imported else {})}
            writer = EpisodeWriter.create(
                target, source.spec, provenance, frames=frames, jpeg_quality=jpeg_quality
            )
        if imported:
            episode = _numbered(episode, index)
        if isinstance(source, _StoredEpisodes) and source.store.frames == frames == JPEG:
            writer.copy(source.store, index)  # not encoded again, which would lose some more
        else:
            writer.append(episode)


def _already_there(target: str | Path, source: _Source, frames: str) -> frozenset[int]:
    """The source's episodes that an earlier run of this conversion stored."""
    store = EpisodeStore.open(target)
    if store.provenance.get(FOREIGN) != source.provenance.get(FOREIGN):
        raise StoreError(
            f"cannot convert into {target}: there is an episode store already, made otherwise. "
            f"Remove it, or choose another path (policy-data merge puts stores together)."
        )
    if store.frames != frames:
        raise StoreError(
            f"cannot go on with {target}: its frames are kept as {store.frames}. Give "
            f"frames={store.frames}, or choose another path."
        )
    return frozenset(
        int(store.metadata(index)[SOURCE_INDEX]) for index in range(len(store.episodes))
    )


def _numbered(episode: Episode, index: int) -> Episode:
    return replace(episode, metadata={**episode.metadata, SOURCE_INDEX: index})


def _how_made() -> Mapping[str, Any]:
    return {
        "made_by": "policy-data convert",
        "converted_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **machine_and_versions(),
    }


def _into_format(reading: _Reading, target: Path, to: str, codec: str) -> None:
    module = format_named(to)
    source = reading.source
    if len(source) == 0:
        raise StoreError("the source has no episodes. There is nothing to convert.")
    with closing(reading.good()) as numbered:
        good = (episode for _, episode in numbered)
        first = next(good)
        out = exporter(source.spec, source.provenance, sorted(first.extras), module)
        reading.lost += out.lost(first)
        write = module.write
        if codec != AUTO:
            from loopdit.datasets.formats import lerobot

            write = partial(lerobot.write, codec=codec)
        reading.lost += write(target, out.export(chain([first], good), len(source)))


def _say_nothing(done: int, total: int, note: str) -> None:
    pass
