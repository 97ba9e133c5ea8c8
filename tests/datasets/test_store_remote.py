"""Stores at addresses: fsspec's memory and file systems stand for buckets here.

file:// is a real place that several processes write to at once; of what makes a bucket different,
it has no renames, locks or appends used on it.
"""

import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path

import fsspec
import numpy as np
import pytest

from loopdit.datasets.episode_check import check_episode
from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.store import Episode, EpisodeStore, EpisodeWriter
from loopdit.errors import SpecMismatch, StoreError

MakeEpisode = Callable[[int, int], Episode]
CHILD = Path(__file__).with_name("append_episodes.py")
FRAMES = ["raw", "zstd", "jpeg"]


@pytest.fixture(params=["memory", "file"])
def address(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    if request.param == "file":
        return f"file://{tmp_path}/bucket/store"
    return f"memory://{uuid.uuid4()}/store"


def objects(address: str) -> dict[str, bytes]:
    system, root = fsspec.core.url_to_fs(address)
    return {
        path.removeprefix(root).lstrip("/"): system.cat_file(path) for path in system.find(root)
    }


def full(episode: Episode) -> Episode:
    return replace(
        episode, extras={"obs/joint": np.ones((len(episode.actions), 2))}, metadata={"a": [1]}
    )


@pytest.mark.parametrize("frames", FRAMES)
def test_a_store_at_an_address_gives_back_what_a_store_on_a_disk_does(
    address: str, tmp_path: Path, spec: PolicySpec, episode: MakeEpisode, frames: str
):
    local = EpisodeWriter.create(tmp_path / "local", spec, {"by": "test"}, frames)
    remote = EpisodeWriter.create(address, spec, {"by": "test"}, frames)
    for seed in range(3):
        one, other = local.append(full(episode(seed, 4))), remote.append(full(episode(seed, 4)))
        assert one.digest == other.digest
    here, there = EpisodeStore.open(tmp_path / "local"), EpisodeStore.open(address)
    assert (there.path, there.spec, there.provenance, there.frames) == (
        address,
        spec,
        {"by": "test"},
        frames,
    )
    assert there.digest() == here.digest()
    assert [record.seed for record in there.episodes] == [0, 1, 2]
    for index in range(3):
        for name, array in here.arrays(index).items():
            assert not there.is_plain(name)
            np.testing.assert_array_equal(there.arrays(index)[name], array)
            np.testing.assert_array_equal(there.decode(index, name, [3, 0]), array[[3, 0]])
        np.testing.assert_array_equal(
            there.extras(index)["obs/joint"], here.extras(index)["obs/joint"]
        )
        assert there.metadata(index) == {"a": [1]}
        assert check_episode(there, index) == []
        with pytest.raises(ValueError, match="read-only"):
            there.arrays(index)["action"][0] = 0


def test_going_on_at_an_address_keeps_what_is_there_and_checks_the_spec(
    address: str, spec: PolicySpec, episode: MakeEpisode
):
    EpisodeWriter.create(address, spec, {}).append(episode(0, 2))
    EpisodeWriter.resume(address + "/", spec).append(episode(1, 2))
    assert [record.seed for record in EpisodeStore.open(address).episodes] == [0, 1]
    with pytest.raises(SpecMismatch, match=r"control_period_s is 0.1, there 0.5"):
        EpisodeWriter.resume(address, replace(spec, control_period_s=0.5))
    with pytest.raises(StoreError, match=r"already exists. Resume it, remove it, or choose"):
        EpisodeWriter.create(address, spec, {})


def test_an_address_without_a_store_says_so(address: str, spec: PolicySpec):
    for opening in (EpisodeStore.open, lambda path: EpisodeWriter.resume(path, spec)):
        with pytest.raises(StoreError, match=f"there is no episode store at {address}. Check"):
            opening(address)


@pytest.mark.parametrize("frames", FRAMES)
@pytest.mark.parametrize("first_on_disk", [True, False])
def test_a_store_can_be_copied_between_disk_and_address_and_gone_on_with_on_both(
    address: str,
    tmp_path: Path,
    spec: PolicySpec,
    episode: MakeEpisode,
    frames: str,
    first_on_disk: bool,
):
    system, root = fsspec.core.url_to_fs(address)
    disk = str(tmp_path / "disk")
    first, second = (disk, address) if first_on_disk else (address, disk)
    EpisodeWriter.create(first, spec, {}, frames).append(full(episode(0, 3)))
    if first_on_disk:
        system.put(disk, root, recursive=True)
    else:
        system.get(root, disk, recursive=True)
    EpisodeWriter.resume(second, spec).append(full(episode(1, 2)))
    EpisodeWriter.resume(second, spec).append(full(episode(2, 2)))
    if first_on_disk:
        shutil.rmtree(disk)
        system.get(root, disk, recursive=True)
    else:
        system.rm(root, recursive=True)
        system.put(disk, root, recursive=True)
    EpisodeWriter.resume(first, spec).append(full(episode(3, 2)))
    store = EpisodeStore.open(first)
    assert sorted(record.seed or 0 for record in store.episodes) == [0, 1, 2, 3]
    for index, record in enumerate(store.episodes):
        assert check_episode(store, index) == []
        assert record.seed is not None
        expected = episode(record.seed, record.length)
        np.testing.assert_array_equal(store.arrays(index)["action"], expected.actions)


def test_what_no_small_object_names_is_not_seen_and_removed_after_a_day(
    address: str, spec: PolicySpec, episode: MakeEpisode
):
    writer = EpisodeWriter.create(address, spec, {})
    listed = [writer.append(episode(seed, 2)).id for seed in range(2)]
    system, root = fsspec.core.url_to_fs(address)

    def unlisted(age: timedelta) -> str:
        made = datetime.now(UTC) - age
        id = f"episode_{made:%Y%m%dT%H%M%S%f}_0123abcd"
        system.makedirs(f"{root}/episodes/{id}/action", exist_ok=True)
        system.pipe_file(f"{root}/episodes/{id}/action/c.0.0", b"half")
        return id

    young, old = unlisted(timedelta(hours=20)), unlisted(timedelta(hours=30))
    # The line of an episode that was being put when its writer died.
    torn = unlisted(timedelta(hours=40))
    system.pipe_file(f"{root}/index/{torn}.json", b'{"id": "' + torn.encode())
    assert [record.id for record in EpisodeStore.open(address).episodes] == listed
    EpisodeWriter.resume(address, spec)
    left = {name.split("/")[1] for name in objects(address) if name.startswith("episodes/epi")}
    assert left == {*listed, young}
    assert old not in left


def test_a_disk_that_is_written_to_as_an_address_keeps_young_uploads_when_gone_on_with(
    tmp_path: Path, spec: PolicySpec, episode: MakeEpisode
):
    remote = EpisodeWriter.create(f"file://{tmp_path}/store", spec, {})
    listed = remote.append(episode(0, 2)).id
    for age in (timedelta(minutes=1), timedelta(days=2)):
        id = f"episode_{datetime.now(UTC) - age:%Y%m%dT%H%M%S%f}_0123abcd"
        shutil.copytree(tmp_path / "store/episodes" / listed, tmp_path / "store/episodes" / id)
    EpisodeWriter.resume(tmp_path / "store", spec).append(episode(1, 2))
    left = [folder.name for folder in (tmp_path / "store/episodes").iterdir() if folder.is_dir()]
    assert len(left) == 3  # both listed ones and the young one
    assert {listed, "episode_000000"} < set(left)


@pytest.mark.parametrize("damage", ["missing", "altered"])
def test_damage_at_an_address_is_found_and_the_episode_is_dropped(
    address: str, spec: PolicySpec, episode: MakeEpisode, damage: str
):
    writer = EpisodeWriter.create(address, spec, {})
    ids = [writer.append(episode(seed, 2)).id for seed in range(3)]
    system, root = fsspec.core.url_to_fs(address)
    file = f"{root}/episodes/{ids[1]}/proprio/c.0.0"
    if damage == "missing":
        system.rm(file)
    else:
        system.pipe_file(file, b"x" * 16)
    store = EpisodeStore.open(address)
    found = [[key for key, _ in check_episode(store, index)] for index in range(3)]
    assert found == [[], ["proprio"], []]
    if damage == "missing":
        with pytest.raises(StoreError, match=r"proprio/c.0.0 is missing.* policy-data repair"):
            store.arrays(1)
    EpisodeWriter.resume(address, spec).drop([ids[1]])
    assert [record.id for record in EpisodeStore.open(address).episodes] == [ids[0], ids[2]]
    names = set(objects(address))
    assert f"quarantine/{ids[1]}/action/c.0.0" in names
    assert f"quarantine/{ids[1]}.json" in names
    assert not any(name.startswith((f"episodes/{ids[1]}", f"index/{ids[1]}")) for name in names)


def test_an_episode_that_came_from_a_disk_is_dropped_at_an_address(
    address: str, tmp_path: Path, spec: PolicySpec, episode: MakeEpisode
):
    writer = EpisodeWriter.create(tmp_path / "disk", spec, {})
    for seed in range(2):
        writer.append(episode(seed, 2))
    system, root = fsspec.core.url_to_fs(address)
    system.put(str(tmp_path / "disk"), root, recursive=True)
    EpisodeWriter.resume(address, spec).drop(["episode_000000"])
    assert [record.seed for record in EpisodeStore.open(address).episodes] == [1]


def test_an_address_that_nothing_here_opens_says_what_to_do(spec: PolicySpec):
    with pytest.raises(StoreError, match=r"cannot read the episode store lift://x/y.*Check the ad"):
        EpisodeStore.open("lift://x/y")
    if find_spec("s3fs") is None:
        with pytest.raises(StoreError, match=r"cannot open s3://b/y: Install s3fs .* copy the sto"):
            EpisodeWriter.create("s3://b/y", spec, {})


def test_a_place_that_cannot_be_written_says_what_is_kept(
    tmp_path: Path, spec: PolicySpec, episode: MakeEpisode
):
    writer = EpisodeWriter.create(f"file://{tmp_path}/store", spec, {})
    shutil.rmtree(tmp_path / "store/episodes")
    (tmp_path / "store/episodes").write_text("a file in the way of the episodes")
    with pytest.raises(StoreError, match=r"cannot write to the episode store file://.*still are"):
        writer.append(episode(0, 2))


def collect(source: Path, address: str, first: int, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, str(CHILD), str(source), address, str(first), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def source(tmp_path: Path, spec: PolicySpec, episode: MakeEpisode) -> Path:
    EpisodeWriter.create(tmp_path / "source", spec, {}).append(full(episode(0, 5)))
    return tmp_path / "source"


@pytest.mark.system
@pytest.mark.parametrize("frames", FRAMES)
def test_kill_9_of_writers_at_an_address_costs_no_acknowledged_episode(
    source: Path, tmp_path: Path, spec: PolicySpec, frames: str
):
    address = f"file://{tmp_path}/bucket/store"
    EpisodeWriter.create(address, spec, {}, frames)
    acknowledged: set[int] = set()
    random = np.random.default_rng(0)
    for kill in range(4):
        children = [collect(source, address, 1000 * (2 * kill + n), 1000) for n in range(2)]
        for child in children:
            assert child.stdout is not None
            for _ in range(2):
                acknowledged.add(int(child.stdout.readline()))
        time.sleep(random.uniform(0, 0.01))
        for child in children:
            child.send_signal(signal.SIGKILL)
            acknowledged |= {int(seed) for seed in child.communicate()[0].split()}
        store = EpisodeStore.open(address)
        seeds = [record.seed for record in store.episodes]
        assert acknowledged <= set(seeds)
        assert len(seeds) == len(set(seeds)) <= len(acknowledged) + 2 * (kill + 1)
        assert all(check_episode(store, index) == [] for index in range(len(seeds)))


@pytest.mark.system
def test_processes_that_put_at_once_lose_nothing_and_readers_see_only_whole_episodes(
    source: Path, tmp_path: Path, spec: PolicySpec
):
    address = f"file://{tmp_path}/bucket/store"
    EpisodeWriter.create(address, spec, {})
    children = [collect(source, address, first=1000 * i, count=10) for i in range(2)]
    seen = 0
    while any(child.poll() is None for child in children):
        store = EpisodeStore.open(address)
        assert len(store.episodes) >= seen
        seen = len(store.episodes)
        assert all(check_episode(store, index) == [] for index in range(seen))
    for child in children:
        child.communicate()
    assert [child.returncode for child in children] == [0, 0]
    records = EpisodeStore.open(address).episodes
    assert sorted(record.seed or 0 for record in records) == [*range(10), *range(1000, 1010)]
