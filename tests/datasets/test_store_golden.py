"""The format of episodes on disk, held still by small stores that are committed."""

import json
import runpy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loopdit.datasets.episode_check import check_episode
from loopdit.datasets.store import Episode, EpisodeStore, EpisodeWriter

GOLDENS = Path(__file__).parents[1] / "goldens"
VERSION_1 = GOLDENS / "episode_store_v1"
VERSION_2 = GOLDENS / "episode_store_v2"
made: dict[str, Any] = runpy.run_path(str(GOLDENS / "make_episode_store.py"))


def contents(path: Path) -> dict[str, bytes]:
    return {str(f.relative_to(path)): f.read_bytes() for f in path.rglob("*") if f.is_file()}


def assert_equal(read: Episode, expected: Episode, image_error: int = 0) -> None:
    assert (read.instruction, read.success, read.seed) == (
        expected.instruction,
        expected.success,
        expected.seed,
    )
    np.testing.assert_array_equal(read.actions, expected.actions)
    assert set(read.observations) == set(expected.observations)
    for name, array in expected.observations.items():
        error = np.abs(read.observations[name].astype(float) - array)
        assert error.max() <= (image_error if name.startswith("images.") else 0)
    assert set(read.extras) == set(expected.extras)
    for name, array in expected.extras.items():
        np.testing.assert_array_equal(read.extras[name], array)
    assert read.metadata == expected.metadata


def test_stores_of_format_version_1_are_read():
    store = EpisodeStore.open(VERSION_1)
    assert store.spec == made["golden_spec"]()
    assert store.provenance == {"made_by": "tests/goldens", "seeds": [7]}
    assert store.frames == "raw"
    (record,) = store.episodes
    assert (record.id, record.length, record.seed) == ("episode_000000", 3, 7)
    assert record.digest == "279d7d0e115a0f618a31b1f793eb6a95"
    assert_equal(store.episode(0), made["golden_episode"]())
    assert check_episode(store, 0) == []


def test_stores_of_format_version_1_are_gone_on_with(tmp_path: Path):
    shutil.copytree(VERSION_1, tmp_path / "store")
    before = contents(tmp_path / "store")
    writer = EpisodeWriter.resume(tmp_path / "store", made["golden_spec"]())
    writer.append(made["golden_episode_with_extras"]())
    store = EpisodeStore.open(tmp_path / "store")
    assert_equal(store.episode(0), made["golden_episode"]())
    assert_equal(store.episode(1), made["golden_episode_with_extras"]())
    after = contents(tmp_path / "store")
    assert after.pop("episodes.jsonl").startswith(before.pop("episodes.jsonl"))
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize("frames", made["FRAMES"])
def test_stores_of_format_version_2_are_read(frames: str):
    store = EpisodeStore.open(VERSION_2 / frames)
    assert store.spec == made["golden_spec"]()
    assert store.frames == frames
    error = 40 if frames == "jpeg" else 0  # its frames are noise of 4x4 pixels
    assert_equal(store.episode(0), made["golden_episode"](), error)
    assert_equal(store.episode(1), made["golden_episode_with_extras"](), error)
    assert [check_episode(store, index) for index in range(2)] == [[], []]


def test_an_episode_has_the_same_digest_in_both_versions_and_without_loss():
    digests = {
        EpisodeStore.open(path).episodes[0].digest
        for path in (VERSION_1, VERSION_2 / "raw", VERSION_2 / "zstd")
    }
    assert digests == {"279d7d0e115a0f618a31b1f793eb6a95"}


def without_what_a_library_compressed(files: dict[str, bytes], frames: str) -> dict[str, Any]:
    """Other versions of zstd or libjpeg write other bytes, of another length and digest."""
    if frames == "raw":
        return files
    kept: dict[str, Any] = {}
    for name, content in files.items():
        if "/images." not in name and name.endswith(".json"):
            text = json.loads(content)
            for key in ("digest", "crc32"):
                text.get("attributes", {}).pop(key, None)
            kept[name] = text
        elif "/images." in name and not name.endswith("jpegs/zarr.json"):
            kept[name] = content if name.endswith(".json") else None
        elif not name.endswith(("episodes.jsonl", "jpegs/zarr.json")):
            kept[name] = content
    return kept


@pytest.mark.parametrize("frames", made["FRAMES"])
def test_writing_the_golden_stores_again_gives_the_same_bytes(tmp_path: Path, frames: str):
    made["write_golden"](tmp_path / "again", frames)
    again, golden = (
        without_what_a_library_compressed(contents(path), frames)
        for path in (tmp_path / "again", VERSION_2 / frames)
    )
    assert again == golden
