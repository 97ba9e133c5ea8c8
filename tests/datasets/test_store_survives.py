"""Whatever stops a writer (kill -9, a full disk), no acknowledged episode is lost.

Episodes have extras and metadata here; the frames are kept in each way there is.
"""

import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loopdit.datasets.episode_check import check_episode
from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.store import Episode, EpisodeStore, EpisodeWriter
from loopdit.errors import StoreError

MakeEpisode = Callable[[int, int], Episode]
CHILD = Path(__file__).with_name("append_episodes.py")


def full_episode(episode: MakeEpisode) -> Episode:
    extras = {"reward": np.arange(5.0), "obs/joint": np.ones((5, 2), np.float16)}
    return replace(episode(0, 5), extras=extras, metadata={"operator": "a"})


@pytest.fixture
def source(tmp_path: Path, spec: PolicySpec, episode: MakeEpisode) -> Path:
    """The store whose only episode, of 5 steps, the child processes append again and again."""
    EpisodeWriter.create(tmp_path / "source", spec, {}).append(full_episode(episode))
    return tmp_path / "source"


ENCODED = [pytest.param(frames, marks=pytest.mark.system) for frames in ("zstd", "jpeg")]


@pytest.fixture(params=["raw", *ENCODED])
def target(tmp_path: Path, spec: PolicySpec, request: pytest.FixtureRequest) -> Path:
    EpisodeWriter.create(tmp_path / "target", spec, {}, request.param)
    return tmp_path / "target"


def collect(
    source: Path, target: Path, first: int, count: int, *limit: int
) -> subprocess.Popen[str]:
    command = [sys.executable, str(CHILD), str(source), str(target), str(first), str(count)]
    return subprocess.Popen([*command, *map(str, limit)], stdout=subprocess.PIPE, text=True)


def leftovers(target: Path) -> set[str]:
    """The folders among the episodes that are not complete episodes."""
    listed = {record.id for record in EpisodeStore.open(target).episodes}
    return {p.name for p in (target / "episodes").iterdir() if p.is_dir()} - listed


def assert_equal_to_source(source: Path, target: Path) -> None:
    expected, store = EpisodeStore.open(source).episode(0), EpisodeStore.open(target)
    for index in range(len(store.episodes)):
        assert check_episode(store, index) == []
        read = store.episode(index)
        np.testing.assert_array_equal(read.actions, expected.actions)
        np.testing.assert_array_equal(read.extras["obs/joint"], expected.extras["obs/joint"])
        assert read.metadata == expected.metadata
        if store.frames != "jpeg":  # of which its checksum tells
            for name, array in expected.observations.items():
                np.testing.assert_array_equal(read.observations[name], array)


def test_kill_9_while_appending_costs_no_acknowledged_episode(
    source: Path, target: Path, spec: PolicySpec, episode: MakeEpisode
):
    kills, acknowledged = 6, set[int]()
    moment = random.Random(0)
    for kill in range(kills):
        child = collect(source, target, first=1000 * kill, count=1000)
        assert child.stdout is not None
        for _ in range(3):
            acknowledged.add(int(child.stdout.readline()))
        time.sleep(moment.uniform(0, 0.01))  # an append takes a few ms: somewhere within one
        child.send_signal(signal.SIGKILL)
        acknowledged |= {int(seed) for seed in child.communicate()[0].split()}
        seeds = [record.seed for record in EpisodeStore.open(target).episodes]
        assert acknowledged <= set(seeds)
        assert len(seeds) == len(set(seeds)) <= len(acknowledged) + kill + 1
        assert_equal_to_source(source, target)
    EpisodeWriter.resume(target, spec).append(episode(7, 5))
    assert leftovers(target) == set()


def test_a_torn_last_line_is_ignored_and_then_replaced(
    store: Path, spec: PolicySpec, episode: MakeEpisode
):
    index = store / "episodes.jsonl"
    whole = index.read_bytes()
    for torn in (whole[:-1], whole[:-20], whole[:-100], whole[:-1] + b" " * 1000):
        index.write_bytes(torn)
        assert [e.seed for e in EpisodeStore.open(store).episodes] == [0, 1]
    EpisodeWriter.resume(store, spec).append(episode(5, 3))
    opened = EpisodeStore.open(store)
    assert [e.seed for e in opened.episodes] == [0, 1, 5]
    assert index.read_bytes().endswith(b"}\n")
    np.testing.assert_array_equal(opened.arrays(2)["action"], episode(5, 3).actions)


def test_resuming_removes_what_dead_writers_left_and_nothing_else(store: Path, spec: PolicySpec):
    episodes = store / "episodes"
    for unfinished in (".tmp-1-0", f".tmp-{os.getpid()}-0", "episode_000003"):
        shutil.copytree(episodes / "episode_000000", episodes / unfinished)
    (episodes / "notes").mkdir()
    EpisodeWriter.resume(store, spec)
    assert leftovers(store) == {"notes"}
    assert len(EpisodeStore.open(store).episodes) == 3


def test_an_episode_renamed_but_never_listed_makes_way_for_the_next(
    store: Path, spec: PolicySpec, episode: MakeEpisode
):
    writer = EpisodeWriter.resume(store, spec)
    shutil.copytree(store / "episodes/episode_000000", store / "episodes/episode_000003")
    assert writer.append(episode(3, 2)).id == "episode_000003"
    np.testing.assert_array_equal(
        EpisodeStore.open(store).arrays(3)["action"], episode(3, 2).actions
    )


def test_resuming_leaves_the_unfinished_episode_of_a_living_writer_alone(
    source: Path, target: Path, spec: PolicySpec
):
    child = collect(source, target, first=0, count=60)
    assert child.stdout is not None
    child.stdout.readline()
    try:
        unfinished = stop_within_an_append(child, target)
        EpisodeWriter.resume(target, spec)
        assert leftovers(target) == unfinished
    finally:
        child.send_signal(signal.SIGCONT)
        child.communicate()
    assert child.returncode == 0
    assert [e.seed for e in EpisodeStore.open(target).episodes] == list(range(60))
    assert_equal_to_source(source, target)


def stop_within_an_append(child: subprocess.Popen[str], target: Path) -> set[str]:
    """Stop the child while it has an unfinished folder and not the list's lock; the folders."""
    while child.poll() is None:
        child.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        with open(target / "episodes.jsonl", "rb") as index:
            try:
                fcntl.flock(index, fcntl.LOCK_EX | fcntl.LOCK_NB)
                locked = False
            except BlockingIOError:
                locked = True
        found = leftovers(target)
        if found and not locked:
            return found
        child.send_signal(signal.SIGCONT)
        time.sleep(0.001)
    raise AssertionError("the child ended before it was stopped within an append")


def test_processes_that_append_at_once_lose_nothing_and_readers_see_only_whole_episodes(
    source: Path, target: Path
):
    children = [collect(source, target, first=1000 * i, count=15) for i in range(2)]
    seen = 0
    while any(child.poll() is None for child in children):
        count = len(EpisodeStore.open(target).episodes)
        assert count >= seen
        seen = count
        assert_equal_to_source(source, target)
        time.sleep(0.02)
    for child in children:
        child.communicate()
    records = EpisodeStore.open(target).episodes
    assert [child.returncode for child in children] == [0, 0]
    assert sorted(e.seed or 0 for e in records) == [*range(15), *range(1000, 1015)]
    assert [e.id for e in records] == [f"episode_{n:06d}" for n in range(30)]
    assert leftovers(target) == set()


def outcome(child: subprocess.Popen[str]) -> tuple[list[int], dict[str, Any]]:
    """The acknowledged seeds and the report of a child that met a StoreError."""
    *acknowledged, report = child.communicate()[0].splitlines()
    assert child.returncode == 1
    return [int(seed) for seed in acknowledged], json.loads(report)


@pytest.mark.parametrize(
    ("largest_file", "what_does_not_fit"),
    [(200, "the images of the first episode"), (6000, "a line of the list")],
)
def test_a_disk_that_takes_no_more_leaves_the_store_whole_and_says_what_to_do(
    source: Path,
    target: Path,
    spec: PolicySpec,
    episode: MakeEpisode,
    largest_file: int,
    what_does_not_fit: str,
):
    acknowledged, report = outcome(collect(source, target, 0, 1000, largest_file))
    complete = len(acknowledged)
    assert (complete == 0) == ("images" in what_does_not_fit)
    assert report["readable"] == report["listed"] == complete
    assert str(target) in report["error"]
    assert f"{complete} episodes there are complete and readable" in report["error"]
    assert "Free space" in report["error"]
    assert "\n" not in report["error"]
    assert leftovers(target) == set()
    assert (target / "episodes.jsonl").read_bytes()[-1:] in (b"", b"\n")
    EpisodeWriter.resume(target, spec).append(episode(1000, 5))  # as if space had been freed
    seeds = [record.seed for record in EpisodeStore.open(target).episodes]
    assert seeds == [*acknowledged, 1000]


IN_A_SMALL_FILE_SYSTEM = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
MOUNT = 'mount -t tmpfs -o size=512k tmpfs "$0"'


@pytest.mark.parametrize("frames", ["raw", *ENCODED])
def test_a_full_file_system_leaves_the_store_whole_and_says_what_to_do(
    tmp_path: Path, spec: PolicySpec, episode: MakeEpisode, frames: str
):
    source = tmp_path / "source"
    EpisodeWriter.create(source, spec, {}, frames).append(full_episode(episode))
    disk = tmp_path / "disk"
    disk.mkdir()
    try:
        subprocess.run([*IN_A_SMALL_FILE_SYSTEM, MOUNT, disk], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this system lets no unprivileged process mount a file system")
    command = [sys.executable, CHILD, source, disk / "store", "0", "1000"]
    child = subprocess.Popen(
        [*IN_A_SMALL_FILE_SYSTEM, f'{MOUNT} && exec "$@"', disk, *command],
        stdout=subprocess.PIPE,
        text=True,
    )
    acknowledged, report = outcome(child)
    assert acknowledged == list(range(len(acknowledged)))
    assert report["readable"] == report["listed"] == len(acknowledged) > 0
    assert "No space left on device" in report["error"]
    assert f"{len(acknowledged)} episodes there are complete" in report["error"]


def test_a_store_that_may_not_be_written_says_so(
    store: Path, spec: PolicySpec, episode: MakeEpisode
):
    writer = EpisodeWriter.resume(store, spec)
    shutil.rmtree(store / "episodes")
    (store / "episodes").write_text("a file in the way of the episodes")
    with pytest.raises(StoreError, match=r"cannot write to .*: Not a directory; 3 episodes"):
        writer.append(episode(3, 2))
