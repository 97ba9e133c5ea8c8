"""A foreign episode as one of ours under a layout, and the exact way back.

T steps. What our arrays cannot give back bit by bit (float64 actions, unchosen columns, keys that
the mapping does not name) is kept as an extra under the foreign key; texts and what the episode
says of itself are kept in the metadata:

    metadata["foreign"]  ForeignEpisode.metadata without the success and seed that we hold
    metadata["texts"]    {key: {"text": one for all steps, "times": T}} or {key: {"each": [...]}}

so that `to_foreign(to_ours(episode))` is the episode again, but for frames that were floats.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from loopdit.datasets.episode import Episode
from loopdit.datasets.formats.foreign import ForeignEpisode
from loopdit.datasets.formats.layout import Layout, split_parts
from loopdit.datasets.formats.vector_parts import PartSource, part_of_ours, put_back
from loopdit.datasets.spec import IMAGE_PREFIX, PROPRIO
from loopdit.errors import StoreError

FOREIGN = "foreign"  # where a store's provenance and an episode's metadata keep what is not ours
TEXTS = "texts"
_TRUE = ("true", "1", "yes", "success")
_FALSE = ("false", "0", "no", "failure")


def to_ours(layout: Layout, episode: ForeignEpisode) -> Episode:
    """Our episode; `episode` has passed `checks` and fits the layout."""
    mapping, steps = layout.mapping, episode.steps
    observations = {
        f"{IMAGE_PREFIX}{camera}": np.ascontiguousarray(steps[key])
        for camera, key in layout.cameras.items()
    }
    observations[PROPRIO] = _joined(layout.proprio, steps)
    actions = _joined(layout.action, steps)
    rebuilt = _vectors(layout, observations[PROPRIO], actions)
    frames = {*layout.cameras.values(), *layout.left_out}
    extras = {
        key: np.ascontiguousarray(values)
        for key, values in steps.items()
        if key not in frames
        and key not in mapping.drop
        and not _identical(values, rebuilt.get(key))
    }
    success = _found(mapping.success, episode)
    seed = _found(mapping.seed, episode)
    instruction = _instruction(layout, episode)
    return Episode(
        observations=observations,
        actions=actions,
        instruction=instruction,
        success=_truth(success),
        seed=None if seed is None else _seed(seed, mapping.seed, episode.where),
        extras=extras,
        metadata=_metadata(layout, episode, instruction),
    )


def to_foreign(layout: Layout, episode: Episode, where: str) -> ForeignEpisode:
    """The foreign episode that `to_ours` made this of, or the one that the layout makes of ours."""
    mapping, length = layout.mapping, len(episode.actions)
    steps: dict[str, np.ndarray] = {
        key: frames_as(episode.observations[f"{IMAGE_PREFIX}{camera}"], layout.steps[key].dtype)
        for camera, key in layout.cameras.items()
    }
    for key in layout.left_out:
        shape, dtype = layout.steps[key].shape, layout.steps[key].dtype
        steps[key] = np.zeros((length, *shape), dtype)
    steps |= _vectors(layout, episode.observations[PROPRIO], episode.actions)
    steps |= episode.extras
    texts = _texts(mapping.instruction, episode)
    metadata = dict(episode.metadata.get(FOREIGN, {}))
    for value, keys in ((episode.success, mapping.success), (episode.seed, mapping.seed)):
        if (
            value is not None
            and keys
            and not any(key in place for key in keys for place in (texts, steps, metadata))
        ):
            metadata[keys[0]] = value
    return ForeignEpisode(where, steps, texts, metadata)


def _joined(sources: Sequence[PartSource], steps: Mapping[str, np.ndarray]) -> np.ndarray:
    parts = [part_of_ours(source, steps[source.key]) for source in sources]
    return np.ascontiguousarray(np.concatenate(parts, axis=1))


def _vectors(layout: Layout, proprio: np.ndarray, actions: np.ndarray) -> dict[str, np.ndarray]:
    """The foreign vectors by key, with 0 for what no part holds."""
    vectors = {
        key: np.zeros((len(actions), *layout.steps[key].shape), layout.steps[key].dtype)
        for key in layout.vectors
    }
    for sources, ours in ((layout.proprio, proprio), (layout.action, actions)):
        for source, part in zip(sources, split_parts(sources, ours), strict=True):
            put_back(source, part, vectors[source.key])
    return vectors


def frames_as(frames: np.ndarray, dtype: str) -> np.ndarray:
    """uint8 frames in the foreign dtype: floats in [0, 1] where it has floats."""
    return frames if dtype == "uint8" else (frames / 255.0).astype(dtype)


def _identical(values: np.ndarray, rebuilt: np.ndarray | None) -> bool:
    """Bit by bit: -0.0 is not 0.0 here."""
    return (
        rebuilt is not None
        and values.shape == rebuilt.shape
        and values.dtype == rebuilt.dtype
        and values.tobytes() == rebuilt.tobytes()
    )


def _instruction(layout: Layout, episode: ForeignEpisode) -> str:
    """The first text that says something: of several in one episode the others are metadata."""
    for key in layout.mapping.instruction:
        if key in episode.texts:
            return next((text for text in episode.texts[key] if text), "")
        if isinstance(episode.metadata.get(key), str):
            return str(episode.metadata[key])
    return ""


def _found(keys: Sequence[str], episode: ForeignEpisode) -> Any:
    """The value of the first key that is there; of a per-step array, its largest."""
    for key in keys:
        if episode.texts.get(key):
            return episode.texts[key][-1]
        if key in episode.steps:
            return episode.steps[key].max().item()
        if episode.metadata.get(key) is not None:
            return episode.metadata[key]
    return None


def _truth(value: Any) -> bool | None:
    """None for a text that is neither yes nor no: nobody knows then."""
    if isinstance(value, str):
        word = value.strip().lower()
        return True if word in _TRUE else False if word in _FALSE else None
    return None if value is None else bool(value)


def _seed(value: Any, keys: Sequence[str], where: str) -> int:
    if isinstance(value, int | float) and math.isfinite(value) and value == int(value):
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]{1,40}\s*", value):
        return int(value)
    raise StoreError(
        f"{where}: {' or '.join(map(repr, keys))} is {value!r:.60}, no whole number. Take the key "
        f"out of the mapping's seed, or leave the episode out with skip_bad=true."
    )


def _metadata(layout: Layout, episode: ForeignEpisode, instruction: str) -> dict[str, Any]:
    mapping = layout.mapping
    held = {
        keys[0]
        for keys, kind in ((mapping.success, bool), (mapping.seed, int))
        if keys and type(episode.metadata.get(keys[0])) is kind
    }
    foreign = {key: value for key, value in episode.metadata.items() if key not in held}
    own = mapping.instruction[0] if mapping.instruction else None
    texts = {
        key: _shortened(values)
        for key, values in episode.texts.items()
        if (key, values) != (own, (instruction,))
    }
    if own is not None and own not in episode.texts:
        texts[own] = {"each": []}  # which tells the way back to make no text of ours
    named = {FOREIGN: foreign, TEXTS: texts}
    return {name: value for name, value in named.items() if value}


def _shortened(values: tuple[str, ...]) -> dict[str, Any]:
    if values and set(values) == {values[0]}:
        return {"text": values[0], "times": len(values)}
    return {"each": list(values)}


def _texts(keys: Sequence[str], episode: Episode) -> dict[str, tuple[str, ...]]:
    texts = {keys[0]: (episode.instruction,)} if keys else {}
    for key, kept in episode.metadata.get(TEXTS, {}).items():
        texts[key] = (kept["text"],) * kept["times"] if "times" in kept else tuple(kept["each"])
    return {key: values for key, values in texts.items() if values}
