"""The thread that reads the next episode while a conversion writes the one before.

Left to the garbage collector it may be ended in zarr's thread, which it waits for itself: a hang.
`caught` keeps the error's frames, and so what they hold, alive.
"""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from loopdit.datasets.episode import Episode
from loopdit.datasets.formats.convert import convert
from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.store import EpisodeWriter
from loopdit.errors import StoreError


def pools() -> set[threading.Thread]:
    """The running threads of all thread pools that nobody named."""
    return {thread for thread in threading.enumerate() if "ThreadPool" in thread.name}


def test_a_format_that_refuses_an_episode_ends_the_reading(
    tmp_path: Path, spec: PolicySpec, episode: Callable[[int, int], Episode]
):
    writer = EpisodeWriter.create(tmp_path / "source", spec, {})
    writer.append(episode(0, 3))
    writer.append(replace(episode(1, 3), extras={"force": np.arange(3.0)}))
    writer.append(episode(2, 3))
    before = pools()
    with pytest.raises(StoreError, match="only some episodes have 'force'") as caught:
        convert(tmp_path / "source", tmp_path / "out", to="diffusion_policy")
    assert pools() <= before, caught
