"""Read Minari's data sets: HDF5 by h5py, Arrow and Parquet by pyarrow (`minari_arrow`).

    ID/data/metadata.json       the spaces, env_spec, who made it and how
    ID/data/main_data.hdf5      episode_0/{observations,actions,rewards,terminations,truncations,
                                infos}, and its id, total_steps, seed and options as attributes
    ID/data/0/part-0.arrow      the same of episode 0, its attributes in 0/metadata.json

T actions have T + 1 observations and infos: the last one follows the last action, and no policy is
asked for an action there; it is kept in the episode's metadata. Observations and infos that are
dictionaries or tuples are one key for each element: "observations/pixels", "infos/success". Actions
have to be one vector: what a policy of ours can do.
"""

import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from loopdit.datasets.formats.foreign import OURS, ForeignEpisode
from loopdit.datasets.formats.hdf5_files import attributes, is_text, leaves, read, reading, texts
from loopdit.datasets.formats.mapping import DataMapping, VectorPart
from loopdit.datasets.formats.minari_spaces import (
    Space,
    is_image,
    leaf_spaces,
    limits,
    parsed_space,
)
from loopdit.datasets.formats.plain_json import from_plain, to_plain
from loopdit.errors import ConfigError, StoreError

NAME = "minari"
METADATA = "metadata.json"
MAIN_FILE = "main_data.hdf5"
# Told by every reader of the episode's attributes, and told by us otherwise.
_COUNTED = ("id", "total_steps")


@dataclass(frozen=True)
class RawEpisode:
    """An episode as a file has it: arrays or texts by key, and its attributes as plain JSON."""

    values: Mapping[str, Any]
    attributes: Mapping[str, Any]


Read = Callable[[int, str], RawEpisode]  # the episode's id, and what a message calls it


@dataclass(frozen=True)
class MinariData:
    """See `foreign.ForeignData`. facts["metadata"] is metadata.json, `spaces` those of each key;
    `keys` has the former key of each info that our writer made one."""

    path: Path
    facts: Mapping[str, Any]
    ids: Sequence[int]
    read: Read
    spaces: Mapping[str, Space] = field(default_factory=dict[str, Space])
    keys: Mapping[str, str] = field(default_factory=dict[str, str])
    notes: Sequence[str] = (
        "the observation after an episode's last action is kept in its metadata: no policy is "
        "asked for an action there",
    )

    @classmethod
    def of(cls, path: Path, folder: Path, metadata: Mapping[str, Any]) -> "MinariData":
        """Raises StoreError for files that are missing, and for actions that are no vectors."""
        facts: dict[str, Any] = {"metadata": dict(metadata)}
        left: dict[str, Any] = facts["metadata"].pop(OURS, {})
        if "ours" in left:
            facts[OURS] = left["ours"]
        spaces: dict[str, Space] = {}
        for name in ("observation", "action"):
            space = parsed_space(metadata.get(f"{name}_space"))
            spaces |= leaf_spaces(space, f"{name}s") if space is not None else {}
        actions = {key: space["type"] for key, space in spaces.items() if key.startswith("actions")}
        if actions and actions != {"actions": "Box"}:
            raise StoreError(
                f"{path} has actions of the kind {', '.join(sorted(set(actions.values())))}"
                f"{' in several parts' if 'actions' not in actions else ''}; loopdit's policies "
                f"command one vector of numbers (Box). There is no way to convert this set."
            )
        compressed = bool(metadata.get("jpeg_encoding", True))
        if (folder / MAIN_FILE).exists():
            ids, reader = _hdf5(folder / MAIN_FILE, spaces, compressed)
        else:
            from loopdit.datasets.formats.minari_arrow import arrow_episodes

            kind = str(metadata.get("data_format"))
            ids, reader = arrow_episodes(folder, kind, spaces, compressed)
        said = metadata.get("total_episodes")
        if not ids or (isinstance(said, int) and said != len(ids)):
            raise StoreError(
                f"{folder / METADATA} says {said} episodes, there are {len(ids)}: the writer may "
                f"have been stopped. Correct total_episodes to use those, or fetch the set again."
            )
        return cls(path, facts, ids, reader, spaces, left.get("keys", {}))

    def __len__(self) -> int:
        return len(self.ids)

    def episode(self, index: int) -> ForeignEpisode:
        """See `foreign.ForeignData`."""
        where = f"{self.path}, episode {self.ids[index]}"
        raw = self.read(self.ids[index], where)
        for key in ("actions", "rewards"):
            if not isinstance(raw.values.get(key), np.ndarray):
                raise StoreError(
                    f"{where} has no {key!r} that are an array. Fetch the data set again."
                )
        return self._without_last(raw, len(raw.values["rewards"]), where)

    def _without_last(self, raw: RawEpisode, length: int, where: str) -> ForeignEpisode:
        """T steps, and in the metadata what follows the last of them or is no array of steps."""
        steps: dict[str, np.ndarray] = {}
        words: dict[str, tuple[str, ...]] = {}
        last: dict[str, Any] = {}
        other: dict[str, Any] = {}
        for place, value in raw.values.items():
            key = self.keys.get(place, place)
            size = len(value) if isinstance(value, tuple) or np.ndim(value) else -1
            if size not in (length, length + 1):
                if key.startswith("observations"):
                    raise StoreError(
                        f"{where}: {key} has {size} steps, there are {length} actions. "
                        f"Fetch the data set again."
                    )
                if isinstance(value, str):
                    words[key] = (value,)
                else:
                    other[key] = to_plain(value)
                continue
            if size > length:
                last[key] = to_plain(value[length])
            if isinstance(value, tuple):
                words[key] = value[:length]
            else:
                steps[key] = value[:length]
        said = {name: v for name, v in raw.attributes.items() if name not in _COUNTED}
        ours = _ours_of(said.pop(OURS, "{}"), where)
        if "seed" in said:
            ours["seed"] = _seed(said.pop("seed"), where)
        metadata = {"attributes": said, "last": last, "other": other}
        return ForeignEpisode(where, steps, words, {**ours, NAME: metadata})

    def suggested_mapping(self) -> DataMapping:
        """Every vector of the observations is proprio, in the order of the space; the limits are
        the spaces'. The rate is not held."""
        first = self.episode(0)
        keys = [key for key in self.spaces if key in first.steps and key != "actions"]
        keys += [k for k in first.steps if k.startswith("observations") and k not in keys]
        cameras = [key for key in keys if first.steps[key].ndim == 4]
        vectors = [key for key in keys if first.steps[key].ndim <= 2]
        if not vectors:
            raise ConfigError(
                f"{self.path} has no vector among its observations ({', '.join(keys)}), and a "
                f"policy needs one for proprio. Give a mapping that names one."
            )
        instruction = [k for k in first.texts if k.split("/")[-1] in ("mission", "instruction")]
        return DataMapping(
            cameras={_camera(key): (key,) for key in cameras},
            proprio=tuple(self._part(key) for key in vectors),
            action=(self._part("actions"),),
            action_frame="not stated by the data set",
            instruction=tuple(instruction),
            success=tuple(k for k in ("infos/success", "infos/is_success") if k in first.steps),
            seed=("seed",),
        )

    def _part(self, key: str) -> VectorPart:
        low, high = limits(self.spaces.get(key))
        return VectorPart((key,), low=low, high=high)


def _ours_of(text: Any, where: str) -> dict[str, Any]:
    try:
        ours: Any = json.loads(text)
    except (TypeError, ValueError):
        ours = None
    if not isinstance(ours, dict):
        raise StoreError(
            f"{where}: the attribute {OURS!r} is no JSON object: {text!r:.60}. "
            f"Remove it, or fetch the data set again."
        )
    return ours


def _seed(plain: Any, where: str) -> int:
    try:
        return int(from_plain(plain))
    except (TypeError, ValueError) as error:
        raise StoreError(
            f"{where}: the attribute 'seed' is {plain!r:.60}, no whole number. Remove it, or leave "
            f"the episode out with skip_bad=true."
        ) from error


def _camera(key: str) -> str:
    return key.removeprefix("observations").strip("/").replace("/", "_") or "image"


def _hdf5(path: Path, spaces: Mapping[str, Space], compressed: bool) -> tuple[list[int], Read]:
    with reading(path) as file:
        numbers = [re.fullmatch(r"episode_(\d+)", name) for name in file]
        ids = sorted(int(number[1]) for number in numbers if number is not None)

    def read_episode(number: int, where: str) -> RawEpisode:
        with reading(path) as file:
            group = file[f"episode_{number}"]
            values: dict[str, Any] = {}
            for key, dataset in leaves(group):
                value = read(dataset, where, key)
                space = spaces.get(key)
                if compressed and is_image(space) and dataset.ndim < 3:
                    values[key] = decoded(value, where, key)
                else:
                    words = texts(value) if is_text(dataset) else ()
                    values[key] = (words if dataset.shape else words[0]) if words else value
            return RawEpisode(values, attributes(group, where))

    return ids, read_episode


def decoded(frames: Sequence[Any], where: str, key: str) -> np.ndarray:
    """The frames of JPEG files, each bytes or an array of them."""
    from PIL import Image, UnidentifiedImageError

    found: list[np.ndarray] = []
    for step, frame in enumerate(frames):
        try:
            found.append(np.asarray(Image.open(io.BytesIO(bytes(frame)))))
        except (OSError, UnidentifiedImageError) as error:
            raise StoreError(
                f"{where}: {key} is no JPEG at step {step}. Fetch the data set again."
            ) from error
        if found[-1].shape != found[0].shape:
            raise StoreError(
                f"{where}: {key} has shape {found[-1].shape} at step {step}, {found[0].shape} "
                f"before. Fetch the data set again."
            )
    if not found:
        raise StoreError(f"{where}: {key} has no steps. Leave it out with skip_bad=true.")
    return np.stack(found)
