"""What an RLDS data set that says little is probably made of.

Features from a record where features.json is missing, and a mapping from the names that Open-X
data sets use. Neither guesses rates or units.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from loopdit.datasets.formats.mapping import DataMapping, VectorPart
from loopdit.datasets.formats.rlds_features import IMAGE, STEPS, TENSOR, TEXT, RldsFeature
from loopdit.datasets.formats.tf_example import Feature
from loopdit.errors import ConfigError, StoreError

_IMAGE_STARTS = (b"\x89PNG", b"\xff\xd8\xff")
_FLAGS = ("is_first", "is_last", "is_terminal")
INSTRUCTIONS = (
    "language_instruction",
    "observation/natural_language_instruction",
    "natural_language_instruction",
    "episode_metadata/language_instruction",
)
# The parts of an action that is a dictionary, in the order that Open-X users give them:
# octo/data/oxe/oxe_standardization_transforms.py.
_ACTION_PARTS = ("world_vector", "rotation_delta")
_GRIPPERS = ("open_gripper", "gripper_closedness_action")


def guess_features(record: Mapping[str, Feature]) -> list[RldsFeature]:
    """Features with the sizes that a record has. Raises StoreError where nothing tells how many
    steps it has."""
    count = next((len(record[STEPS + flag]) for flag in _FLAGS if STEPS + flag in record), 0)
    if count == 0:
        raise StoreError(
            "a TFRecord without features.json has no steps/is_first, is_last or is_terminal, so "
            "its episodes' lengths are unknown. Put the data set's features.json beside it."
        )
    return [_guessed(path, values, count) for path, values in record.items()]


def guess_mapping(features: Sequence[RldsFeature], path: Path) -> DataMapping:
    """Raises ConfigError naming what there is where proprio or action cannot be told."""
    steps = {feature.key: feature for feature in features if feature.is_step}
    cameras = {
        key.rsplit("/", 1)[-1]: (key,)
        for key, feature in steps.items()
        if feature.kind == IMAGE and feature.shape[-1:] == (3,) and key.startswith("observation/")
    }
    return DataMapping(
        cameras=cameras,
        proprio=_proprio(steps, path),
        action=_action(steps, path),
        action_frame="not said by the data set",
        instruction=tuple(key for key in INSTRUCTIONS if _has_text(features, key))
        or INSTRUCTIONS[:1],
        success=("episode_metadata/success",),
        seed=("episode_metadata/seed",),
    )


def _guessed(path: str, values: Feature, count: int) -> RldsFeature:
    steps = count if path.startswith(STEPS) else 1
    if isinstance(values, list):
        is_image = all(value.startswith(_IMAGE_STARTS) for value in values)
        if is_image and values:
            return RldsFeature(path, IMAGE, (None, None, 3), "uint8")
        return RldsFeature(path, TEXT)
    size = len(values) // steps
    flag = values.dtype == np.int64 and path.rsplit("/", 1)[-1] in _FLAGS
    dtype = "bool" if flag else values.dtype.name
    return RldsFeature(path, TENSOR, () if size == 1 else (size,), dtype, "none")


def _proprio(steps: Mapping[str, RldsFeature], path: Path) -> tuple[VectorPart, ...]:
    for key in ("observation/state", "observation/proprio"):
        if key in steps and _is_vector(steps[key]):
            return (VectorPart((key,)),)
    vectors = [
        key
        for key, feature in steps.items()
        if key.startswith("observation/") and _is_vector(feature) and "embedding" not in key
    ]
    if not vectors:
        raise ConfigError(
            f"{path} has no vector among its observations ({', '.join(steps)}). "
            f"Give a mapping that names its proprio."
        )
    return tuple(VectorPart((key,)) for key in vectors)


def _action(steps: Mapping[str, RldsFeature], path: Path) -> tuple[VectorPart, ...]:
    if "action" in steps:
        return (VectorPart(("action",)),)
    parts = [f"action/{name}" for name in _ACTION_PARTS if f"action/{name}" in steps]
    grippers = [f"action/{name}" for name in _GRIPPERS if f"action/{name}" in steps]
    if not parts:
        there = [key for key in steps if key.startswith("action")] or list(steps)
        raise ConfigError(
            f"{path} has an action of unknown parts ({', '.join(there)}). "
            f"Give a mapping that puts them in order."
        )
    return tuple(VectorPart((key,)) for key in (*parts, *grippers[:1]))


def _is_vector(feature: RldsFeature) -> bool:
    return feature.kind == TENSOR and len(feature.shape) <= 1 and feature.dtype.startswith("float")


def _has_text(features: Sequence[RldsFeature], key: str) -> bool:
    return any(feature.key == key and feature.kind == TEXT for feature in features)
