"""Read robomimic's HDF5 files, LIBERO's among them.

    data/demo_0/actions            (T, A), each within [-1, 1]
    data/demo_0/obs/KEY            (T, ...), frames (T, H, W, 3) uint8
    data/demo_0/next_obs/KEY       (T, ...), the same one step later
    data/demo_0/{rewards,dones,states,...}
    data/demo_0.attrs              num_samples, model_file (the MuJoCo model in XML), ...
    data.attrs                     total, env_args (JSON), LIBERO's problem_info (JSON)
    mask/NAME                      the names of the demos in a subset: "train", "valid", ...

A key is the path below the demo: "obs/agentview_image". `next_obs` is left out where it is `obs`
one step later, as it nearly always is, but for its last step, which is kept in the metadata.

LIBERO saves frames as OpenGL renders them, with the last row first, and says so in an attribute
(its scripts/create_dataset.py; Lifelong-Robot-Learning/LIBERO issue 11). They are turned upright
here and turned back when such a data set is written again. robomimic itself saves them upright.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from loopdit.datasets.formats.foreign import OURS, ForeignEpisode
from loopdit.datasets.formats.hdf5_files import attributes, is_text, leaves, read, reading, texts
from loopdit.datasets.formats.mapping import DataMapping
from loopdit.datasets.formats.plain_json import to_plain
from loopdit.datasets.formats.robomimic_environment import environment_mapping
from loopdit.errors import StoreError

NAME = "robomimic"
LANGUAGE = "ep_meta/lang"  # RoboCasa's place for an instruction, and ours when we write
PROBLEM_LANGUAGE = "problem_info/language_instruction"  # LIBERO's, one for a file


@dataclass(frozen=True)
class RobomimicData:
    """See `foreign.ForeignData`. `demos` are the file and the name of each.

    facts["files"] has of each file by name its attributes by group, and the demos of its masks.
    """

    path: Path
    facts: Mapping[str, Any]
    demos: Sequence[tuple[Path, str]]
    notes: Sequence[str] = ()

    @classmethod
    def of_files(cls, path: Path, files: Sequence[Path]) -> "RobomimicData":
        """Raises StoreError for a file that is not robomimic's, and where no demo is in any."""
        facts: dict[str, Any] = {"files": {}}
        demos: list[tuple[Path, str]] = []
        for file_path in files:
            with reading(file_path) as file:
                if not isinstance(file.get("data"), h5py.Group):
                    raise StoreError(
                        f"{file_path} has no group 'data', so it is no robomimic file. "
                        f"Name its format with format=, or take it out of the folder."
                    )
                said = _facts(file, str(file_path))
                demos += [(file_path, name) for name in _demos(file)]
            ours = said["attributes"]["data"].pop(OURS, None)
            if ours is not None:
                facts[OURS] = _parsed(ours, str(file_path), OURS)
            facts["files"][file_path.name] = said
        if not demos:
            raise StoreError(f"{path} has no demos in its group 'data'. Check the path.")
        turned_files = [name for name, said in facts["files"].items() if bottom_row_first(said)]
        notes = (
            f"the frames of {name} were saved with the last row first and are turned upright"
            for name in turned_files
        )
        return cls(path, facts, demos, tuple(notes))

    def __len__(self) -> int:
        return len(self.demos)

    def episode(self, index: int) -> ForeignEpisode:
        """See `foreign.ForeignData`."""
        path, name = self.demos[index]
        with reading(path) as file:
            return _episode(file, path, name, self.facts["files"][path.name])

    def suggested_mapping(self) -> DataMapping:
        """From the environment's arguments, and the keys and texts of the first demo."""
        path, _ = self.demos[0]
        said = self.facts["files"][path.name]["attributes"]["data"]
        arguments = _parsed(said.get("env_args", "{}"), str(path), "env_args")
        first = self.episode(0)
        instruction = tuple(key for key in (LANGUAGE, PROBLEM_LANGUAGE) if key in first.texts)
        return environment_mapping(str(path), arguments, first.steps, instruction)


def bottom_row_first(facts: Mapping[str, Any]) -> bool:
    """Whether a file's frames have the last row first, as its facts say."""
    return facts["attributes"]["data"].get("macros_image_convention") == "opengl"


def turned(key: str, value: np.ndarray) -> np.ndarray:
    """(T, H, W, C) of an observation with its rows in the other order; anything else as it is."""
    return value[:, ::-1] if value.ndim == 4 and "obs/" in key else value


def _demos(file: Any) -> list[str]:
    """demo_10 after demo_2."""
    # A link that leads nowhere, as damage leaves it, is an episode that cannot be read.
    names = [name for name, item in file["data"].items() if not isinstance(item, h5py.Dataset)]
    return sorted(names, key=lambda name: ([int(n) for n in re.findall(r"\d+", name)], name))


def _facts(file: Any, where: str) -> dict[str, Any]:
    groups = {"": file, "data": file["data"]}
    masks: dict[str, list[str]] = {}
    if "mask" in file:
        groups["mask"] = file["mask"]
        masks = {key: list(texts(read(d, where, key))) for key, d in leaves(file["mask"])}
    return {
        "attributes": {key: attributes(group, where) for key, group in groups.items()},
        "masks": masks,
    }


def _episode(file: Any, path: Path, name: str, facts: Mapping[str, Any]) -> ForeignEpisode:
    where = f"{path}, {name}"
    demo = file["data"].get(name)
    if demo is None:
        raise StoreError(f"{where} cannot be found in the file, which is damaged. Fetch it again.")
    if not isinstance(demo.get("actions"), h5py.Dataset) or demo["actions"].ndim == 0:
        raise StoreError(f"{where} has no 'actions'. Remove that demo, or fetch the file again.")
    length = len(demo["actions"])
    turn = bottom_row_first(facts)
    steps: dict[str, np.ndarray] = {}
    words: dict[str, tuple[str, ...]] = {}
    odd: dict[str, Any] = {}
    for key, dataset in leaves(demo):
        value = read(dataset, where, key)
        stepwise = dataset.ndim > 0 and len(dataset) == length
        if key.startswith(("obs/", "next_obs/")) and not stepwise:
            raise StoreError(
                f"{where}: {key} has the shape {dataset.shape}, there are {length} actions. "
                f"Remove that demo, or mend the file."
            )
        if is_text(dataset) and dataset.shape in ((), (length,)):
            words[key] = texts(value)
        elif stepwise and not is_text(dataset):
            steps[key] = turned(key, value) if turn else value
        else:
            odd[key] = to_plain(value)
    said = {key: attributes(group, where) for key, group in _groups(demo)}
    ours = _parsed(said[""].pop(OURS, "{}"), where, OURS)
    metadata: dict[str, Any] = {
        "file": path.name,
        "demo": name,
        "masks": [mask for mask, names in facts["masks"].items() if name in names],
        "attributes": said,
        "last": _without_next(steps),
        "other": odd,
        "scalars": [key for key in words if demo[key].shape == ()],
    }
    words |= _instructions(said[""], facts["attributes"]["data"], where)
    return ForeignEpisode(where, steps, words, {**ours, NAME: metadata})


def _instructions(
    demo: Mapping[str, Any], data: Mapping[str, Any], where: str
) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    if "ep_meta" in demo:
        language = _parsed(demo["ep_meta"], where, "ep_meta").get("lang")
        if language is not None:
            found[LANGUAGE] = (str(language),)
    if "problem_info" in data:
        language = _parsed(data["problem_info"], where, "problem_info").get("language_instruction")
        if language is not None:
            # A list of its characters in some of LIBERO's files, and within quotes in others.
            words = language if isinstance(language, str) else "".join(map(str, language))
            found[PROBLEM_LANGUAGE] = (words.strip('"'),)
    return found


def _parsed(text: Any, where: str, attribute: str) -> dict[str, Any]:
    try:
        parsed: Any = json.loads(text)
    except (TypeError, ValueError):
        parsed = None
    if not isinstance(parsed, dict):
        raise StoreError(
            f"{where}: the attribute {attribute} is no JSON object: {text!r:.60}. Mend the file."
        )
    return parsed


def _groups(group: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path below the demo, group) of the demo itself, whose path is "", and every group in it."""
    yield path, group
    for name, item in group.items():
        if isinstance(item, h5py.Group):
            yield from _groups(item, f"{path}/{name}".lstrip("/"))


def _without_next(steps: dict[str, np.ndarray]) -> dict[str, Any]:
    """Take out each `next_obs` that is `obs` one step later; the last step of each by its key."""
    last: dict[str, Any] = {}
    for key in [key for key in steps if key.startswith("next_obs/")]:
        now, after = steps.get(key.removeprefix("next_")), steps[key]
        if now is not None and now.dtype == after.dtype and np.array_equal(now[1:], after[:-1]):
            last[key] = to_plain(after[-1])
            del steps[key]
    return last
