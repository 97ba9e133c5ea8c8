from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from loopdit.datasets.decoded_cache import DecodedCache
from loopdit.datasets.mixing import DataPart
from loopdit.datasets.part_check import check_parts
from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.store import Episode, EpisodeStore, EpisodeWriter
from loopdit.errors import SpecMismatch, StoreError

MakeEpisode = Callable[[int, int], Episode]


@pytest.mark.parametrize("frames", ["raw", "zstd", "jpeg"])
def test_sound_data_pass_and_frames_are_not_decoded(
    tmp_path: Path, spec: PolicySpec, episode: MakeEpisode, frames: str
):
    EpisodeWriter.create(tmp_path / "store", spec, {}, frames=frames).append(episode(0, 4))
    cache = DecodedCache(tmp_path / "cache", 1 << 20)
    check_parts(EpisodeStore.open(tmp_path / "store"), cache)
    assert not cache.folder.exists()


@pytest.mark.parametrize(("key", "step"), [("action", 7), ("proprio", 2)])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_number_that_is_not_finite_is_named_by_store_episode_key_and_step(
    store: Path, key: str, step: int, value: str
):
    opened = EpisodeStore.open(store)
    numbers = np.fromfile(opened.file(2, key), "<f4").reshape(8, -1)
    numbers[step, 1] = float(value)
    numbers.tofile(opened.file(2, key))
    with pytest.raises(
        StoreError,
        match=rf"^{key} of episode_000002 of .*/store is {value} at step {step}, index \[1\]",
    ):
        check_parts(opened)
    check_parts([DataPart(opened, [0, 1])])


def test_a_frame_file_that_was_cut_short_is_named(store: Path):
    opened = EpisodeStore.open(store)
    opened.file(0, "images.wrist").write_bytes(bytes(100))
    with pytest.raises(
        StoreError, match=r"images.wrist/.* has 100 bytes, its episode 240 \(episode_000000 of"
    ):
        check_parts(opened)


def test_a_file_that_is_gone_is_named(store: Path):
    opened = EpisodeStore.open(store)
    opened.file(1, "action").unlink()
    with pytest.raises(StoreError, match=r"action/.* has 0 bytes"):
        check_parts(opened)


def test_parts_of_different_specs_are_named(
    tmp_path: Path, store: Path, spec: PolicySpec, episode: MakeEpisode
):
    other = replace(spec, action_frame="the camera")
    EpisodeWriter.create(tmp_path / "other", other, {}).append(episode(0, 2))
    parts = [DataPart(EpisodeStore.open(path), [0]) for path in (store, tmp_path / "other")]
    with pytest.raises(SpecMismatch, match=r"action_frame is base of the robot, there the camera"):
        check_parts(parts)
