"""Write robomimic's HDF5 files; `robomimic_reader` says what is in them.

What came from several files goes into a folder with as many, anything else into one file. A demo
keeps its name where it has one and no other has taken it.
"""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from loopdit.datasets.formats.foreign import OURS, Export, ForeignEpisode
from loopdit.datasets.formats.hdf5_files import HDF5Writer, set_attributes, write_texts, writing
from loopdit.datasets.formats.new_target import new_target
from loopdit.datasets.formats.plain_json import from_plain
from loopdit.datasets.formats.robomimic_reader import (
    LANGUAGE,
    NAME,
    PROBLEM_LANGUAGE,
    bottom_row_first,
    turned,
)
from loopdit.errors import StoreError

_GYM = 2  # robomimic's EnvType for whatever is not robosuite or iGibson
_NO_FACTS: dict[str, Any] = {"attributes": {"": {}, "data": {}}, "masks": {}}


def write(path: Path, export: Export) -> list[str]:
    """See `foreign.Format`. Raises StoreError for actions outside [-1, 1], which robomimic's
    own check refuses."""
    files: Mapping[str, Any] = export.facts.get("files", {})
    lost: set[str] = set()
    with new_target(path) as aside, ExitStack() as stack:
        if len(files) > 1:
            aside.mkdir()
        writers: dict[str, _DemoWriter] = {}
        for episode in export.episodes:
            name = episode.metadata.get(NAME, {}).get("file")
            if len(files) < 2 or name not in files:
                name = next(iter(files), "")
            if name not in writers:
                place = aside / name if len(files) > 1 else aside
                file = stack.enter_context(writing(place))
                writers[name] = _DemoWriter(file, files.get(name, _NO_FACTS))
            lost |= writers[name].add(episode)
        for writer in writers.values():
            writer.finish(export)
    return sorted(lost)


class _DemoWriter:
    """Adds demos to one file."""

    def __init__(self, file: HDF5Writer, facts: Mapping[str, Any]) -> None:
        self._file, self._facts = file, facts
        self._data = file.file.create_group("data")
        self._turn = bottom_row_first(facts)
        self._total = 0
        self._names: dict[str, str] = {}  # of each demo written, the name it had before
        self._masks: dict[str, list[str]] = {mask: [] for mask in facts["masks"]}
        self._attributes = facts["attributes"]

    def add(self, episode: ForeignEpisode) -> set[str]:
        """Write one demo; what it had and the file cannot hold."""
        _require_actions(episode)
        own: Mapping[str, Any] = episode.metadata.get(NAME, {})
        lost: set[str] = set()
        name = self._free_name(own.get("demo"))
        self._names[name] = own.get("demo", name)
        demo = self._data.create_group(name)
        for key, value in episode.steps.items():
            demo.create_dataset(key, data=turned(key, value) if self._turn else value)
        for key, packed in own.get("last", {}).items():
            now = episode.steps.get(key.removeprefix("next_"))
            if now is not None:
                last = from_plain(packed)
                after = np.concatenate([now[1:], np.asarray(last, now.dtype)[None]])
                demo.create_dataset(key, data=turned(key, after) if self._turn else after)
        if "obs" in demo and "next_obs" not in demo and not own:
            lost.add(
                "there is no next_obs, as the observation after the last action was not recorded "
                "(robomimic: hdf5_load_next_obs=false)"
            )
        for key, packed in own.get("other", {}).items():
            value = from_plain(packed)
            is_text = isinstance(value, np.ndarray) and value.dtype.kind == "O"
            demo.create_dataset(key, data=value, dtype=h5py.string_dtype() if is_text else None)
        for group, said in own.get("attributes", {}).items():
            set_attributes(demo.require_group(group) if group else demo, said)
        self._write_texts(demo, episode, own)
        length = len(episode.steps["actions"])
        demo.attrs["num_samples"] = length
        ours = {key: value for key, value in episode.metadata.items() if key != NAME}
        if ours:
            demo.attrs[OURS] = json.dumps(ours)
        for mask in own.get("masks", ()):
            self._masks.setdefault(mask, []).append(name)
        self._total += length
        self._file.check()
        return lost

    def finish(self, export: Export) -> None:
        """Write what is said once: the attributes and the masks."""
        file = self._file.file
        set_attributes(file, self._attributes[""])
        set_attributes(self._data, self._attributes["data"])
        self._data.attrs["total"] = self._total
        if "num_demos" in self._data.attrs:  # LIBERO's
            self._data.attrs["num_demos"] = len(self._names)
        if not export.facts:
            environment = {"control_freq": export.rate_hz}
            self._data.attrs["env_args"] = json.dumps(
                {"env_name": "loopdit", "type": _GYM, "env_kwargs": environment}
            )
        if export.ours:
            self._data.attrs[OURS] = json.dumps(export.ours)
        if self._masks:
            group = file.create_group("mask")
            set_attributes(group, self._attributes.get("mask", {}))
            for mask, names in self._masks.items():
                before = self._facts["masks"].get(mask, [])
                places = {name: place for place, name in enumerate(before)}
                names.sort(key=lambda name: places.get(self._names[name], len(places)))
                group.create_dataset(mask, data=np.array(names, dtype="S" if names else "S1"))
        self._file.check()

    def _free_name(self, wanted: str | None) -> str:
        if wanted is not None and wanted not in self._names:
            return wanted
        number = len(self._names)
        while f"demo_{number}" in self._names:
            number += 1
        return f"demo_{number}"

    def _write_texts(self, demo: Any, episode: ForeignEpisode, own: Mapping[str, Any]) -> None:
        problem = self._attributes["data"].get("problem_info")
        for key, values in episode.texts.items():
            if key == PROBLEM_LANGUAGE and problem is not None:
                continue  # the file's own attribute says it
            if key in (LANGUAGE, PROBLEM_LANGUAGE) and len(set(values)) == 1:
                said = json.loads(demo.attrs.get("ep_meta", "{}"))
                if said.get("lang") != values[0]:
                    demo.attrs["ep_meta"] = json.dumps(said | {"lang": values[0]})
            else:
                scalar = len(values) == 1 and key in own.get("scalars", [key])
                write_texts(demo, key, values, scalar)


def _require_actions(episode: ForeignEpisode) -> None:
    actions = episode.steps.get("actions")
    if actions is None:
        raise StoreError(
            f"{episode.where} has no 'actions', where robomimic looks for them. "
            f"Name that key for the action in the mapping."
        )
    outside = np.argwhere(~(np.abs(actions) <= 1))
    if len(outside):
        step, *index = outside[0].tolist()
        raise StoreError(
            f"{episode.where}: actions{index} is {actions[tuple(outside[0])]:g} at step {step}; "
            f"robomimic takes actions within [-1, 1] alone. Give a mapping whose scale and offset "
            f"for the action bring it there."
        )
