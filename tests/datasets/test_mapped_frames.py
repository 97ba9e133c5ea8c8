import os
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from loopdit.datasets.mapped_frames import EpisodeFiles, MapBudget
from loopdit.errors import StoreError

MakeFiles = Callable[..., EpisodeFiles]
SHAPE, LENGTHS = (2, 3), (5, 1, 4)


def values(episode: int) -> np.ndarray:
    return np.random.default_rng(episode).integers(0, 256, (LENGTHS[episode], *SHAPE), np.uint8)


@pytest.fixture
def files(tmp_path: Path) -> MakeFiles:
    for episode in range(3):
        values(episode).tofile(tmp_path / str(episode))

    def make(**limits: int) -> EpisodeFiles:
        return EpisodeFiles(
            SHAPE,
            np.dtype("uint8"),
            np.array(LENGTHS),
            lambda episode: tmp_path / str(episode),
            lambda episode: f"episode {episode} of a test",
            MapBudget(**limits),
        )

    return make


def read(files: EpisodeFiles, episode: int, first: int, count: int) -> np.ndarray:
    out = np.empty((1, count, *SHAPE), np.uint8)
    files.read(np.array([episode]), np.arange(first, first + count)[None], out)
    return out[0]


@pytest.mark.parametrize(
    "limits",
    [{}, {"limit_files": 0}, {"limit_files": 1}, {"limit_bytes": 7}],
    ids=["all mapped", "none mapped", "one mapped", "the smallest mapped"],
)
def test_steps_read_are_those_of_the_file_mapped_or_not(files: MakeFiles, limits: dict[str, int]):
    opened = files(**limits)
    for _ in range(2):
        for episode, length in enumerate(LENGTHS):
            for first in range(length):
                for count in range(1, length - first + 1):
                    np.testing.assert_array_equal(
                        read(opened, episode, first, count), values(episode)[first : first + count]
                    )
    many = np.empty((3, 3, *SHAPE), np.uint8)
    opened.read(np.array([2, 0, 1]), np.array([[1, 2, 3], [0, 0, 1], [0, 0, 0]]), many)
    np.testing.assert_array_equal(many[0], values(2)[1:4])
    np.testing.assert_array_equal(many[1], values(0)[[0, 0, 1]])
    np.testing.assert_array_equal(many[2], values(1)[[0, 0, 0]])


@pytest.mark.parametrize("limits", [{}, {"limit_files": 0}], ids=["mapped", "not mapped"])
def test_a_file_that_was_cut_short_is_named_with_its_episode(
    files: MakeFiles, tmp_path: Path, limits: dict[str, int]
):
    os.truncate(tmp_path / "2", 17)
    with pytest.raises(StoreError, match=r"/2 has 17 bytes, its episode 24 \(episode 2 of a test"):
        read(files(**limits), 2, 0, 1)


def test_a_file_cut_short_while_it_is_read_is_named(files: MakeFiles, tmp_path: Path):
    opened = files(limit_files=0)
    read(opened, 2, 0, 4)
    os.truncate(tmp_path / "2", 20)
    with pytest.raises(StoreError, match=r"/2 ends before step 4 of episode 2 of a test"):
        read(opened, 2, 2, 2)


def test_where_addresses_are_limited_files_are_read_without_mapping(
    files: MakeFiles, tmp_path: Path
):
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1, hard))
    try:
        opened = files()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    np.testing.assert_array_equal(read(opened, 2, 1, 3), values(2)[1:])
    assert str(tmp_path / "2") not in Path("/proc/self/maps").read_text()


def test_steps_of_any_size_are_read_whatever_a_page_is(tmp_path: Path):
    for step_bytes in (1, 7, 4096, 27648, 5000):
        stored = [np.random.default_rng(n).bytes(step_bytes * n) for n in (1, 3, 2)]
        for number, content in enumerate(stored):
            (tmp_path / f"{step_bytes}-{number}").write_bytes(content)
        opened = EpisodeFiles(
            (step_bytes,),
            np.dtype("uint8"),
            np.array([1, 3, 2]),
            lambda episode, size=step_bytes: tmp_path / f"{size}-{episode}",
            str,
            MapBudget(),
        )
        out = np.empty((3, 1, step_bytes), np.uint8)
        opened.read(np.array([1, 2, 0]), np.array([[2], [1], [0]]), out)
        assert out[0].tobytes() == stored[1][-step_bytes:]
        assert out[1].tobytes() == stored[2][-step_bytes:]
        assert out[2].tobytes() == stored[0]


def test_mapped_files_keep_no_descriptor_and_go_with_their_reader(files: MakeFiles, tmp_path: Path):
    opened = files()
    before = len(os.listdir("/proc/self/fd"))
    read(opened, 0, 0, 5)
    assert len(os.listdir("/proc/self/fd")) == before
    assert str(tmp_path / "0") in Path("/proc/self/maps").read_text()
    del opened
    assert str(tmp_path / "0") not in Path("/proc/self/maps").read_text()
