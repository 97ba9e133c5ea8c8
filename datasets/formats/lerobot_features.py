"""What becomes of an export's keys in a LeRobot data set: the features of its info.json.

Decided by the first episode; every other one must be like it. LeRobot's names have no "/", its five
counting columns belong to it, and one element alone is a number and not a vector of one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from loopdit.datasets.formats.foreign import Export, ForeignEpisode
from loopdit.datasets.formats.lerobot_info import COUNTERS, TIMESTAMP
from loopdit.datasets.formats.lerobot_reader import TASK
from loopdit.errors import StoreError

_COUNTED = (TIMESTAMP, *COUNTERS)
_MOST_AXES = 5  # of Hugging Face's Array5D


@dataclass(frozen=True)
class Plan:
    """`cameras`, `numbers` and `texts` give LeRobot's key of each of the export's.

    `as_video` are LeRobot's keys of the cameras that become videos, the others become PNG;
    `features` is for info.json; `phrases` say what is not held as it was.
    """

    cameras: Mapping[str, str]
    numbers: Mapping[str, str]
    texts: Mapping[str, str]
    as_video: frozenset[str]
    features: dict[str, dict[str, Any]]
    phrases: list[str]

    def require_same(self, first: ForeignEpisode, episode: ForeignEpisode) -> None:
        """Raise StoreError where an episode has other keys, shapes or dtypes than the first, or
        keys of several lengths."""
        lengths = {key: len(values) for key, values in episode.steps.items()}
        if len(set(lengths.values())) != 1:
            raise StoreError(f"{episode.where} has {lengths} steps. Leave it out.")
        held = {*self.cameras, *self.numbers}
        here = {key: _described(episode.steps[key]) for key in episode.steps if key in held}
        there = {key: _described(first.steps[key]) for key in held}
        others = set(episode.steps) - set(first.steps) - {TIMESTAMP}
        for key in sorted(others | {k for k in held if here.get(k) != there[k]}):
            raise StoreError(
                f"{episode.where}: {key} is {here.get(key, 'new')}, and "
                f"{there.get(key, 'absent')} in {first.where}: LeRobot needs all episodes alike. "
                f"Leave one of them out."
            )
        if set(self.texts) != set(episode.texts) - {TASK}:
            raise StoreError(
                f"{episode.where} has the texts {', '.join(sorted(episode.texts)) or 'none'}, "
                f"{first.where} {', '.join(sorted(first.texts)) or 'none'}: LeRobot needs all "
                f"episodes alike. Leave one of them out."
            )


def plan(export: Export, first: ForeignEpisode, codec: str) -> Plan:
    """Decide by the first episode. `codec` is "av1", "h264" or "png" for all cameras, or "auto":
    as the data set had them where it came from LeRobot, and AV1 otherwise.

    Raises StoreError for frames that cannot be encoded, and for two keys that get the same name.
    """
    phrases: list[str] = []
    former: Mapping[str, Any] = export.facts.get("features", {})
    pictures = {key for key, values in first.steps.items() if _was_camera(values, former.get(key))}
    cameras = {
        key: _renamed(key, phrases)
        for key in first.steps
        if key in export.images or key in pictures
    }
    numbers = _numbers(export, first, cameras, phrases)
    texts = {key: _renamed(key, phrases) for key in first.texts if key != TASK}
    names = [*cameras.values(), *numbers.values(), *texts.values()]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise StoreError(
            f"two keys of {first.where} become {twice[0]!r} in LeRobot. Rename one of them."
        )
    as_video = frozenset(
        name
        for key, name in cameras.items()
        if codec in ("av1", "h264")
        or (codec == "auto" and former.get(key, {}).get("dtype") != "image")
    )
    features = {
        name: _camera_feature(first, key, "video" if name in as_video else "image")
        for key, name in cameras.items()
    }
    features |= {
        name: _number_feature(first.steps[key], former.get(key, {}), export.names.get(key, ()))
        for key, name in numbers.items()
    }
    features |= {name: {"dtype": "string", "shape": [1], "names": None} for name in texts.values()}
    features |= {
        key: {"dtype": "float32" if key == TIMESTAMP else "int64", "shape": [1], "names": None}
        for key in _COUNTED
    }
    return Plan(cameras, numbers, texts, as_video, features, phrases)


def _numbers(
    export: Export, first: ForeignEpisode, cameras: Mapping[str, str], phrases: list[str]
) -> dict[str, str]:
    """What else LeRobot can hold, by its name there; what cannot be and what changes is told in
    `phrases`."""
    numbers: dict[str, str] = {}
    for key, values in first.steps.items():
        if key in cameras:
            continue
        if key == TIMESTAMP and is_regular(values, export.rate_hz):
            continue  # LeRobot's own column says the same
        reason = _not_held(values)
        if reason:
            phrases.append(f"{key} is left out: {reason}")
            continue
        numbers[key] = _renamed(key, phrases)
        if values.shape[1:] == (1,):
            phrases.append(f"{key} of shape (T, 1) is read back as (T,)")
    return numbers


def _camera_feature(first: ForeignEpisode, key: str, dtype: str) -> dict[str, Any]:
    frames = first.steps[key]
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
        raise StoreError(
            f"{first.where}: {key} is {_described(frames)}; LeRobot's cameras are "
            f"(T, H, W, 3) uint8."
        )
    return {
        "dtype": dtype,
        "shape": list(frames.shape[1:]),
        "names": ["height", "width", "channels"],
    }


def _number_feature(
    values: np.ndarray, former: Mapping[str, Any], labels: Sequence[str]
) -> dict[str, Any]:
    """Its elements' names are those that it came with, where it came so, and else its labels."""
    shape = list(values.shape[1:]) or [1]
    said = former.get("names") if former.get("shape") == shape else None
    return {"dtype": values.dtype.name, "shape": shape, "names": said or list(labels) or None}


def is_regular(timestamps: np.ndarray, rate_hz: float) -> bool:
    """Whether (T,) seconds say no more than the rate does, to the 0.1 ms that LeRobot goes by."""
    if timestamps.ndim != 1 or timestamps.dtype.kind != "f":
        return False
    return bool(np.abs(timestamps - np.arange(len(timestamps)) / rate_hz).max(initial=0) < 1e-4)


def _was_camera(values: np.ndarray, feature: Mapping[str, Any] | None) -> bool:
    """Whether an extra is a camera of the LeRobot data set that it came from."""
    pictures = values.ndim == 4 and values.shape[3] == 3 and values.dtype == np.uint8
    return pictures and (feature or {}).get("dtype") in ("video", "image")


def _renamed(key: str, phrases: list[str]) -> str:
    name = key.replace("/", ".")
    if name in _COUNTED:
        name = f"recorded_{name}"
    if name != key:
        phrases.append(f"{key} is named {name}")
    return name


def _not_held(values: np.ndarray) -> str:
    """Why LeRobot cannot hold such an array, empty if it can."""
    if values.dtype.kind not in "biuf" or values.dtype.itemsize > 8:
        return f"LeRobot has no type {values.dtype}"
    if values.ndim - 1 > _MOST_AXES:
        return f"LeRobot has no arrays of {values.ndim - 1} axes"
    return "its steps are empty" if 0 in values.shape[1:] else ""


def _described(values: np.ndarray) -> str:
    return f"(T{''.join(f', {n}' for n in values.shape[1:])}) {values.dtype.name}"
