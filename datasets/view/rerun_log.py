"""Episodes for the Rerun viewer: frames and each element of each vector on a timeline.

Each episode is a tree of its own, `episode_000000/images.front`, `episode_000000/action/<label>`,
on the timelines `step` and `time` (seconds). Frames are JPEGs, all of them, at their own size.
"""

import errno
import os
import re
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from loopdit.datasets.episode import ACTION
from loopdit.datasets.store import EpisodeStore
from loopdit.datasets.view.film import film
from loopdit.errors import ConfigError

_WHOLE = 1 << 30  # as many frames, or pixels across, as there are


def has_display() -> bool:
    """Whether a window can be opened here."""
    return sys.platform in ("darwin", "win32") or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )


def require_rerun() -> Any:
    """The module. Raises ConfigError where it is not installed."""
    try:
        import rerun
    except ImportError as error:
        raise ConfigError(
            "rerun=true needs the package rerun-sdk. Install it: pip install 'loopdit[rerun]'."
        ) from error
    return rerun


def log_episodes(store: EpisodeStore, episodes: Sequence[int], save_to: Path | None) -> None:
    """Write the episodes to the .rrd file `save_to`, or open a viewer with them where it is None.

    Raises ConfigError where rerun-sdk is missing or finds no viewer, StoreError for an episode
    that cannot be read, OSError where the file cannot be written.
    """
    rerun = require_rerun()
    name = Path(str(store.path)).name
    # What else it holds, Rerun replaces with a warning.
    recording = rerun.RecordingStream(re.sub(r"[^A-Za-z0-9_-]", "_", f"loopdit_{name}"))
    if save_to is not None:
        with _writing():
            recording.save(save_to)
    else:
        try:
            recording.spawn()
        except RuntimeError as error:
            raise ConfigError(
                f"Rerun's viewer does not start: {error}. Name a file instead: out={name}.rrd."
            ) from error
    with _writing():
        for index in episodes:
            _log_episode(rerun, recording, store, index)
        recording.flush()
        recording.disconnect()


@contextmanager
def _writing() -> Generator[None]:
    """Rerun's own kinds of error, told as OSError."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(errno.EIO, str(error)) from error


def _log_episode(rerun: Any, recording: Any, store: EpisodeStore, index: int) -> None:
    record, period_s = store.episodes[index], store.spec.control_period_s
    arrays = store.arrays(index)
    steps = np.arange(record.length)
    times = [
        rerun.TimeColumn("step", sequence=steps),
        rerun.TimeColumn("time", duration=steps * period_s),
    ]
    outcome = {True: "success", False: "failure", None: "outcome unknown"}[record.success]
    about = f"{record.instruction or 'no instruction'}\n\n{outcome}, {record.length} steps"
    recording.log(f"{record.id}/about", rerun.TextDocument(about), static=True)
    for tensor in store.spec.observations:
        if tensor.is_image:
            jpegs = film(arrays[tensor.name], _WHOLE, _WHOLE).jpegs
            columns = rerun.EncodedImage.columns(blob=jpegs, media_type=["image/jpeg"] * len(jpegs))
            recording.send_columns(f"{record.id}/{tensor.name}", indexes=times, columns=columns)
    vectors = [t for t in (store.spec.action, *store.spec.observations) if len(t.shape) == 1]
    for tensor in vectors:
        path = f"{record.id}/{ACTION if tensor is store.spec.action else tensor.name}"
        values = np.asarray(arrays[path.rpartition("/")[2]], np.float64)
        labels = tensor.labels or tuple(f"{tensor.name}[{i}]" for i in range(tensor.shape[0]))
        recording.log(path, rerun.SeriesLines(names=list(labels)), static=True)
        columns = rerun.Scalars.columns(scalars=values)
        recording.send_columns(path, indexes=times, columns=columns)
