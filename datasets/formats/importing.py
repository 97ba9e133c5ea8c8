"""A foreign data set as a sequence of our episodes, with the spec and the provenance of a store.

The spec follows from the mapping and the data set's first episode: labels, units, limits and the
frame from the mapping, image sizes as they are. Cameras that are black in every episode are left
out of it, which takes a look at the episodes before the first one is given out; at how many depends
on how soon each camera shows something.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from loopdit.datasets.episode import Episode, checked_arrays, checked_extras
from loopdit.datasets.formats.checks import black_cameras, checked_steps
from loopdit.datasets.formats.foreign import OURS, ForeignData, ForeignEpisode
from loopdit.datasets.formats.layout import Layout, lay_out, step_shapes
from loopdit.datasets.formats.mapped_episode import FOREIGN, frames_as, to_ours
from loopdit.datasets.formats.mapping import DataMapping
from loopdit.datasets.formats.mapping_file import (
    mapping_from_dict,
    mapping_to_dict,
    read_mapping,
    ready_mappings,
)
from loopdit.datasets.formats.plain_json import finite_json
from loopdit.datasets.formats.refusals import refusing
from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.store_root import folder_of_extra
from loopdit.errors import ConfigError, SpecMismatch, StoreError

AUTO = "auto"
_NAMED = 5  # of many episodes with a black camera
_SAME_RATE = 1e-3  # relative: 1 / 0.0333 s is 30 Hz


@dataclass
class ImportedData:
    """Our episodes by index. `lost`, `notes` and `black` grow while episodes are read.

    `black` has, by camera, the places of the episodes in which it shows nothing.
    """

    data: ForeignData
    layout: Layout
    spec: PolicySpec
    provenance: dict[str, Any]
    notes: list[str]
    lost: list[str] = field(default_factory=list[str])
    black: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    def __len__(self) -> int:
        return len(self.data)

    def episode(self, index: int) -> Episode:
        """Read, check and map one episode. Raises StoreError naming file, episode and key."""
        foreign = _read(self.data, index)
        checked = checked_steps(self.layout, foreign)
        for camera, key in self.layout.cameras.items():
            given, kept = foreign.steps[key], checked.steps[key]
            if given.dtype != kept.dtype:
                self._say(self.notes, f"the float frames of {camera} are kept as uint8")
                if not np.array_equal(given, frames_as(kept, given.dtype.name)):
                    self._say(self.lost, f"what the float frames of {camera} had below 1/255")
        for camera in black_cameras(self.layout.cameras, checked):
            self.black.setdefault(camera, []).append(foreign.where)
        ours = to_ours(self.layout, checked)
        ours = replace(ours, metadata=finite_json(ours.metadata))
        _check_storable(ours, self.spec, foreign.where)
        return ours

    def told(self) -> list[str]:
        """What one should know of the data set and of the episodes that were read."""
        black: list[str] = []
        for camera, places in self.black.items():
            more = f" and {len(places) - _NAMED} more" if len(places) > _NAMED else ""
            named = "; ".join(places[:_NAMED])
            black.append(f"{camera} is black in {len(places)} episodes, kept: {named}{more}")
        return [*self.data.notes, *self.notes, *black]

    @staticmethod
    def _say(phrases: list[str], phrase: str) -> None:
        if phrase not in phrases:
            phrases.append(phrase)


def import_data(
    data: ForeignData,
    format_name: str,
    mapping: str = AUTO,
    rate_hz: float = 0.0,
    skip_bad: bool = False,
) -> ImportedData:
    """Settle mapping, rate and spec. Raises ConfigError or StoreError for what leaves them open.

    `rate_hz` above 0 overrules what the data set and the mapping say.
    """
    chosen = _mapping(data, mapping)
    rate, notes = _rate(data, chosen, rate_hz)
    first = _first_usable(data, chosen, skip_bad)
    layout = lay_out(chosen, step_shapes(first), first.where)
    missing = [camera for camera in chosen.cameras if camera not in layout.cameras]
    if missing:
        notes.append(f"the data set has no {', '.join(missing)}")
    black = _always_black(data, layout)
    if black:
        layout = lay_out(chosen, step_shapes(first), first.where, list(black.values()))
        notes.append(f"left out, black in every episode: {', '.join(black)}")
    provenance = {
        "format": format_name,
        "name": data.path.name,
        "mapping_name": mapping,
        "mapping": mapping_to_dict(chosen),
        "steps": {
            key: {"shape": list(step.shape), "dtype": step.dtype}
            for key, step in layout.steps.items()
        },
        "left_out": list(layout.left_out),
        "facts": finite_json({k: v for k, v in data.facts.items() if k != OURS}),
    }
    return ImportedData(data, layout, layout.spec(rate), {FOREIGN: provenance}, notes)


def _mapping(data: ForeignData, name: str) -> DataMapping:
    if name != AUTO:
        return read_mapping(name)
    ours = data.facts.get(OURS)
    if isinstance(ours, Mapping) and "mapping" in ours:
        return mapping_from_dict(ours["mapping"], f"the mapping kept in {data.path}")
    return _suggested(data)


def _suggested(data: ForeignData) -> DataMapping:
    with refusing(str(data.path), "Give a mapping, or fetch the data set again."):
        return data.suggested_mapping()


def _rate(data: ForeignData, mapping: DataMapping, given: float) -> tuple[float, list[str]]:
    """What the user says, else what the data set says, else what the mapping says."""
    try:
        own = _suggested(data).rate_hz
    except (ConfigError, StoreError):  # it leaves open what a mapping by name says
        own = 0.0
    rate = given or own or mapping.rate_hz
    if not 0 < rate < math.inf:
        raise ConfigError(
            f"{data.path} does not say how many control steps a second it has. "
            f"Give rate_hz=..., or a mapping that says it: {', '.join(ready_mappings())}, or a "
            f".yaml file."
        )
    notes = [
        f"the rate is {rate:g} Hz, though {whose} says {other:g} Hz"
        for other, whose in ((own, "the data set"), (mapping.rate_hz, "the mapping"))
        if other and abs(other - rate) > _SAME_RATE * rate
    ]
    return rate, notes


def _first_usable(data: ForeignData, mapping: DataMapping, skip_bad: bool) -> ForeignEpisode:
    """The episode that decides the spec: the first, or the first that is not bad."""
    reasons: list[str] = []
    for index in range(len(data)):
        try:
            episode = _read(data, index)
            checked_steps(lay_out(mapping, step_shapes(episode), episode.where), episode)
        except StoreError as error:
            if not skip_bad:
                raise
            reasons.append(str(error))
        else:
            return episode
    raise StoreError(" ".join([f"{data.path} has no episode that can be used.", *reasons[:1]]))


def _read(data: ForeignData, index: int) -> ForeignEpisode:
    where = f"{data.path}, episode {index} of {len(data)}"
    with refusing(where, "Leave it out with skip_bad=true, or fetch the file again."):
        return data.episode(index)


def _check_storable(episode: Episode, spec: PolicySpec, where: str) -> None:
    """What a writer would refuse without knowing the file, and when a store has been made."""
    remedy = ""
    try:
        checked_arrays(episode, spec)
        remedy = " Or name that key under drop: in a mapping, which leaves it out."
        checked_extras(episode)
        for name in episode.extras:
            folder_of_extra(name)
    except (StoreError, SpecMismatch) as error:
        raise StoreError(f"{where}: {error}{remedy}") from error


def _always_black(data: ForeignData, layout: Layout) -> dict[str, str]:
    """The cameras, by name, that show nothing in any episode that can be read."""
    unseen = dict(layout.cameras)
    for index in range(len(data)):
        if not unseen:
            break
        try:
            checked = checked_steps(layout, _read(data, index))
        except StoreError:
            continue  # it is reported, or left out, when its turn comes
        unseen = {camera: unseen[camera] for camera in black_cameras(unseen, checked)}
    return unseen
