"""Write Minari's data sets in HDF5; `minari_reader` says what is in them.

Frames are written as they are (`jpeg_encoding` false), which Minari reads from 0.5.4 on. What is
neither an observation nor a reward is an info; under "loopdit", metadata.json and the episodes'
attributes keep what Minari has no place for.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from loopdit.datasets.formats.foreign import OURS, Export, ForeignEpisode
from loopdit.datasets.formats.hdf5_files import HDF5Writer, set_attributes, write_texts, writing
from loopdit.datasets.formats.minari_reader import MAIN_FILE, METADATA, NAME
from loopdit.datasets.formats.minari_spaces import (
    Space,
    box,
    leaf_spaces,
    parsed_space,
    text_space,
    tree,
)
from loopdit.datasets.formats.new_target import new_target
from loopdit.datasets.formats.plain_json import from_plain
from loopdit.errors import StoreError

VERSION = "0.5.4"
_PER_ACTION = ("actions", "rewards", "terminations", "truncations")
_ID = re.compile(r"[-_\w]+-v\d+")


def write(path: Path, export: Export) -> list[str]:
    """See `foreign.Format`. The folder's name is the data set's id: `lift-v0`."""
    with new_target(path) as aside:
        folder = aside / "data"
        folder.mkdir(parents=True)
        with writing(folder / MAIN_FILE) as file:
            writer = _EpisodeWriter(file)
            for episode in export.episodes:
                writer.add(episode)
        metadata = _metadata(path, export, writer)
        size = (folder / MAIN_FILE).stat().st_size
        metadata["dataset_size"] = round(size / 1e6, 1)
        (folder / METADATA).write_text(json.dumps(metadata))
    identity = metadata["dataset_id"]
    if identity.split("/")[-1] != path.name:
        writer.lost.add(f"an id, {path.name!r} has no version: its metadata.json says {identity!r}")
    if export.ours or export.names:
        writer.lost.add(f"names, units and limits of elements ({_KEPT})")
    writer.lost.add(f"the rate of {export.rate_hz:g} Hz ({_KEPT})")
    return sorted(writer.lost)


_KEPT = "in metadata.json, where only loopdit looks"


class _EpisodeWriter:
    """Adds episodes to the file; `leaves` has the space of each observation and of the actions."""

    def __init__(self, file: HDF5Writer) -> None:
        self._file = file
        self.lost: set[str] = set()
        self.keys: dict[str, str] = {}  # of each info that had another key, its former one
        self.leaves: dict[str, Space] = {}
        self.episodes = 0
        self.steps = 0
        self._texts: dict[str, set[str]] = {}

    def add(self, episode: ForeignEpisode) -> None:
        """Write one episode."""
        actions = episode.steps.get("actions")
        if actions is None:
            raise StoreError(
                f"{episode.where} has no 'actions', where Minari looks for them. "
                f"Name that key for the action in the mapping."
            )
        own: Mapping[str, Any] = episode.metadata.get(NAME, {})
        last: Mapping[str, Any] = own.get("last", {})
        group = self._file.file.create_group(f"episode_{self.episodes}")
        for key, values in self._completed(episode, len(actions)).items():
            place = self._place(key)
            self._learn(place, values, episode.where)
            if key in last:
                end = np.asarray(from_plain(last[key]), values.dtype)[None]
            else:
                end = values[-1:] if not own and place not in _PER_ACTION else values[:0]
            group.create_dataset(place, data=np.concatenate([values, end]))
        for key, words in episode.texts.items():
            self._write_text(group, key, words, last.get(key), len(actions))
        for key, packed in own.get("other", {}).items():
            value = from_plain(packed)
            is_text = isinstance(value, np.ndarray) and value.dtype.kind == "O"
            place = self._place(key)
            group.create_dataset(place, data=value, dtype=h5py.string_dtype() if is_text else None)
        group.require_group("infos")
        self._write_attributes(group, episode, own, len(actions))
        self.episodes += 1
        self.steps += len(actions)
        self._file.check()

    def spaces(self) -> dict[str, Space]:
        """The spaces by key: what was seen of each array and all texts of each text."""
        return self.leaves | {key: text_space(texts) for key, texts in self._texts.items()}

    def _completed(self, episode: ForeignEpisode, length: int) -> dict[str, np.ndarray]:
        """The steps with the arrays without which Minari reads no episode."""
        steps = dict(episode.steps)
        if not episode.metadata.get(NAME):
            self.lost.add(
                "the observation after the last action, which was not recorded: the last one is "
                "repeated"
            )
        if "rewards" not in steps:
            steps["rewards"] = np.zeros(length)
            self.lost.add("rewards, as none were recorded: all are written as 0")
        ended = np.arange(length) == length - 1
        success = bool(episode.metadata.get("success"))
        for name, happened in (("terminations", success), ("truncations", not success)):
            steps.setdefault(name, ended & happened)
        return steps

    def _place(self, key: str) -> str:
        if key in _PER_ACTION or key.split("/")[0] in ("observations", "infos"):
            return key
        self.keys[f"infos/{key}"] = key
        return f"infos/{key}"

    def _learn(self, key: str, values: np.ndarray, where: str) -> None:
        if key != "actions" and not key.startswith("observations"):
            return
        space = box(values.shape[1:], values.dtype)
        if self.leaves.setdefault(key, space) != space:
            raise StoreError(
                f"{where}: {key!r} has the shape {values.shape[1:]} and the type {values.dtype}, "
                f"other episodes {tuple(self.leaves[key]['shape'])} and "
                f"{self.leaves[key]['dtype']}; a data set has one space for all."
            )

    def _write_text(
        self, group: Any, key: str, words: tuple[str, ...], last: str | None, length: int
    ) -> None:
        place = self._place(key)
        if place.startswith("observations"):
            words = words * length if len(words) == 1 else words
            self._texts.setdefault(place, set()).update(words)
        if last is not None:
            words = (*words, last)
        write_texts(group, place, words, scalar=len(words) == 1)

    @staticmethod
    def _write_attributes(
        group: Any, episode: ForeignEpisode, own: Mapping[str, Any], length: int
    ) -> None:
        set_attributes(group, own.get("attributes", {}))
        group.attrs["id"] = int(group.name.rsplit("_", 1)[-1])
        group.attrs["total_steps"] = length
        ours = {key: value for key, value in episode.metadata.items() if key not in (NAME, "seed")}
        if episode.metadata.get("seed") is not None:
            group.attrs["seed"] = episode.metadata["seed"]
        if ours:
            group.attrs[OURS] = json.dumps(ours)


def _metadata(path: Path, export: Export, writer: _EpisodeWriter) -> dict[str, Any]:
    former: dict[str, Any] = dict(export.facts.get("metadata", {}))
    spaces = writer.spaces()
    for name in ("observation", "action"):
        key = f"{name}s"
        leaves = {k: space for k, space in spaces.items() if k.split("/")[0] == key}
        before = parsed_space(former.get(f"{name}_space"))
        if before is None or not _holds(leaf_spaces(before, key), leaves):
            former[f"{name}_space"] = json.dumps(tree(leaves, key))
    left: dict[str, Any] = {"rate_hz": export.rate_hz}
    left |= {"ours": export.ours} if export.ours else {}
    left |= {"keys": writer.keys} if writer.keys else {}
    return former | {
        "total_episodes": writer.episodes,
        "total_steps": writer.steps,
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "dataset_id": _identity(path, former.get("dataset_id")),
        "minari_version": VERSION,
        OURS: left,
    }


def _holds(before: Mapping[str, Space], now: Mapping[str, Space]) -> bool:
    """Whether the former space still says the same of shapes and dtypes; its limits are better."""
    if set(before) != set(now):
        return False
    return all(
        before[key]["type"] != "Box"
        or (before[key]["shape"], before[key]["dtype"]) == (now[key]["shape"], now[key]["dtype"])
        for key in before
    )


def _identity(path: Path, former: str | None) -> str:
    """The former id where the folder still lies where Minari looks for it, or the folder's name."""
    if former is not None:
        parts = tuple(former.split("/"))
        if path.absolute().parts[-len(parts) :] == parts:
            return former
    name = re.sub(r"[^-\w]+", "-", path.name)
    return name if _ID.fullmatch(name) else f"{name}-v0"
