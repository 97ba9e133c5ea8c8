"""Whether a foreign episode can be trusted, before any of it is stored.

T steps. Every refusal is a StoreError that names the episode (its file and number), the key, what
is wrong with its value, and what to do.
"""

from collections.abc import Mapping

import numpy as np

from loopdit.datasets.formats.foreign import ForeignEpisode
from loopdit.datasets.formats.layout import Layout
from loopdit.errors import StoreError

_CHANNELS = (1, 3, 4)


def checked_steps(layout: Layout, episode: ForeignEpisode) -> ForeignEpisode:
    """The episode with its frames (T, H, W, 3) uint8. Raises StoreError for what cannot be used.

    Checked are: that there are steps, that every key has as many, that frames, proprio and action
    are there with the shapes of the data set's first episode, frames in RGB with channels last and
    in range, proprio and action finite. Float frames in [0, 1] are rounded to 256 levels.
    """
    steps = dict(episode.steps)
    _check_keys(layout, episode)
    _check_lengths(layout, episode)
    for key in layout.cameras.values():
        steps[key] = checked_frames(steps[key], key, episode.where)
    for key in layout.vectors:
        _check_finite(steps[key], key, episode.where)
    for key, step in layout.steps.items():
        if steps[key].shape[1:] != step.shape:
            raise StoreError(
                f"{episode.where}: {key!r} has shape {steps[key].shape[1:]} at each step, the "
                f"data set's first episode {step.shape}. Leave it out with skip_bad=true, or "
                f"convert it into a store of its own."
            )
    return ForeignEpisode(episode.where, steps, episode.texts, episode.metadata)


def checked_frames(frames: np.ndarray, key: str, where: str) -> np.ndarray:
    """Frames (T, H, W, 3) uint8, or StoreError saying what they are instead."""
    shape = frames.shape
    if frames.ndim == 4 and shape[-1] != 3 and shape[1] in _CHANNELS:
        raise StoreError(
            f"{where}: the frames {key!r} have shape {shape}, channels first. "
            f"Store them as (steps, height, width, 3)."
        )
    if frames.ndim != 4 or shape[-1] != 3:
        channels = f"{shape[-1]} channels" if frames.ndim == 4 else f"{frames.ndim} axes"
        raise StoreError(
            f"{where}: the frames {key!r} have shape {shape}, {channels} where RGB frames "
            f"(steps, height, width, 3) are needed. Convert them, or take the camera out of the "
            f"mapping to keep it as an extra."
        )
    if 0 in shape[1:]:
        raise StoreError(
            f"{where}: the frames {key!r} have shape {shape}, no pixels. Mend the file, or leave "
            f"the episode out with skip_bad=true."
        )
    if frames.dtype == np.uint8:
        return frames
    if frames.dtype.kind != "f":
        raise StoreError(
            f"{where}: the frames {key!r} are {frames.dtype}; uint8, or floats in [0, 1], are "
            f"needed. Convert them."
        )
    low, high = float(frames.min()), float(frames.max())  # either is nan where any pixel is
    if not (low >= 0.0 and high <= 1.0):
        raise StoreError(
            f"{where}: the frames {key!r} are floats from {low:g} to {high:g}, outside [0, 1]. "
            f"Store them as uint8, or scale them to [0, 1]."
        )
    return np.rint(frames * 255.0).astype(np.uint8)


def black_cameras(cameras: Mapping[str, str], episode: ForeignEpisode) -> list[str]:
    """The names of the cameras whose frames are all black: a data set's way to say that it was
    not there, whatever its flags say (those of Bridge are wrong)."""
    return [camera for camera, key in cameras.items() if not episode.steps[key].any()]


def _check_keys(layout: Layout, episode: ForeignEpisode) -> None:
    for key in layout.steps:
        if key not in episode.steps:
            raise StoreError(
                f"{episode.where} lacks {key!r}, which the data set's first episode has. "
                f"Leave it out with skip_bad=true, or mend the file."
            )


def _check_lengths(layout: Layout, episode: ForeignEpisode) -> None:
    reference = layout.action[0].key
    length = len(episode.steps[reference])
    if length == 0:
        raise StoreError(
            f"{episode.where} has no steps: {reference!r} is empty. "
            f"Leave it out with skip_bad=true."
        )
    for key, values in episode.steps.items():
        if len(values) != length:
            raise StoreError(
                f"{episode.where}: {key!r} has {len(values)} steps, {reference!r} has {length}. "
                f"Leave it out with skip_bad=true, or mend the file."
            )


def _check_finite(values: np.ndarray, key: str, where: str) -> None:
    if values.dtype.kind not in "fiub":
        raise StoreError(f"{where}: {key!r} is {values.dtype}, not numbers. Correct the mapping.")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        step, *index = np.argwhere(~np.isfinite(values))[0].tolist()
        at = f", element {index[0]}" if index else ""
        raise StoreError(
            f"{where}: {key!r} is {values[(step, *index)]} at step {step}{at}. "
            f"Leave the episode out with skip_bad=true, or mend the file."
        )
