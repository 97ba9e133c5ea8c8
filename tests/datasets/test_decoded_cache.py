import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from loopdit.datasets.decoded_cache import DecodedCache
from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.store import Episode, EpisodeStore, EpisodeWriter
from loopdit.datasets.windows import WindowSampler
from loopdit.errors import ConfigError, StoreError

MakeEpisode = Callable[[int, int], Episode]
FRONT = "images.front"
BYTES = 6 * 4 * 4 * 3  # one camera of one episode here


@pytest.fixture
def store(tmp_path: Path, spec: PolicySpec, episode: MakeEpisode) -> EpisodeStore:
    """Four episodes of six steps, their frames compressed."""
    writer = EpisodeWriter.create(tmp_path / "store", spec, {}, frames="zstd")
    for seed in range(4):
        writer.append(episode(seed, 6))
    return EpisodeStore.open(tmp_path / "store")


def files_in(folder: Path) -> list[Path]:
    return [file for file in folder.iterdir() if file.name != ".lock"]


def used_at(file: Path, when: float) -> None:
    os.utime(file, (when, when))


def test_a_cached_file_holds_the_plain_bytes_of_the_tensor(
    tmp_path: Path, store: EpisodeStore, episode: MakeEpisode
):
    cache = DecodedCache(tmp_path / "cache", 1 << 20)
    for index in range(4):
        frames = np.fromfile(cache.file(store, index, FRONT), np.uint8)
        assert frames.tobytes() == episode(index, 6).observations[FRONT].tobytes()
    assert "4 files decoded just now" in cache.describe()
    assert DecodedCache(tmp_path / "cache", 1 << 20).file(store, 0, FRONT).exists()


def test_what_is_there_is_not_decoded_again_even_when_the_store_is_gone(
    tmp_path: Path, store: EpisodeStore
):
    cache = DecodedCache(tmp_path / "cache", 1 << 20)
    first = cache.file(store, 0, FRONT)
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    assert cache.file(store, 0, FRONT) == first
    with pytest.raises(StoreError, match="episode_000001"):
        cache.file(store, 1, FRONT)
    assert files_in(tmp_path / "cache") == [first]


def test_the_cache_stays_below_its_bound_and_what_was_used_longest_ago_goes(
    tmp_path: Path, store: EpisodeStore
):
    cache = DecodedCache(tmp_path / "cache", 2 * BYTES)
    now = time.time()
    first, second = (cache.file(store, index, FRONT) for index in (0, 1))
    used_at(first, now - 100)
    used_at(second, now - 50)
    cache.file(store, 0, FRONT)  # used again
    third = cache.file(store, 2, FRONT)
    assert sorted(files_in(tmp_path / "cache")) == sorted([first, third])


def test_other_data_goes_before_what_this_process_has_reserved(tmp_path: Path, store: EpisodeStore):
    cache = DecodedCache(tmp_path / "cache", 2 * BYTES)
    assert cache.reserve(store, [0], [FRONT]) == 0
    reserved = cache.file(store, 0, FRONT)
    other = cache.file(store, 1, FRONT)
    used_at(reserved, time.time() - 100)
    third = cache.file(store, 2, FRONT)
    assert sorted(files_in(tmp_path / "cache")) == sorted([reserved, third])
    assert not other.exists()


def test_reservations_add_up_and_say_how_much_is_lacking(tmp_path: Path, store: EpisodeStore):
    cache = DecodedCache(tmp_path / "cache", 3 * BYTES)
    assert cache.reserve(store, [0, 1], [FRONT]) == 0
    assert cache.reserve(store, [1, 2], [FRONT]) == 0  # episode 1 counts once
    assert cache.reserve(store, [0, 3], [FRONT]) == BYTES
    assert cache.reserve(store, [0], [FRONT]) == 0  # what was refused is not held


def test_a_damaged_file_is_decoded_again(tmp_path: Path, store: EpisodeStore):
    cache = DecodedCache(tmp_path / "cache", 1 << 20)
    file = cache.file(store, 0, FRONT)
    content = file.read_bytes()
    file.write_bytes(content[:10])
    assert cache.file(store, 0, FRONT).read_bytes() == content


def test_threads_that_want_the_same_file_decode_it_once(tmp_path: Path, store: EpisodeStore):
    cache = DecodedCache(tmp_path / "cache", 1 << 20)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: cache.file(store, n % 2, FRONT), range(64)))
    assert "2 files decoded just now" in cache.describe()


def test_sampling_goes_on_while_another_process_empties_the_cache(
    tmp_path: Path, store: EpisodeStore
):
    cache = DecodedCache(tmp_path / "cache", 1 << 20)
    sampler = WindowSampler(store, 2, 8, seed=0, cache=cache)
    expected = [sampler.batch(step).observations[FRONT].copy() for step in range(3)]
    for file in files_in(tmp_path / "cache"):
        file.unlink()
    again = WindowSampler(store, 2, 8, seed=0, cache=cache)
    for step, frames in enumerate(expected):
        np.testing.assert_array_equal(sampler.batch(step).observations[FRONT], frames)
        np.testing.assert_array_equal(again.batch(step).observations[FRONT], frames)


def test_preparing_decodes_every_file_once_and_tells_how_far_it_is(
    tmp_path: Path, store: EpisodeStore
):
    cache = DecodedCache(tmp_path / "cache", 1 << 20)
    sampler = WindowSampler(store, 2, 8, seed=0, cache=cache)
    told: list[tuple[int, int]] = []
    sampler.prepare(lambda done, total: told.append((done, total)), workers=3)
    assert told == [(done, 8) for done in range(1, 9)]
    assert len(files_in(tmp_path / "cache")) == 8
    for step in range(4):
        sampler.batch(step)
    assert "8 files decoded just now" in cache.describe()
    sampler.prepare(lambda done, total: told.append((done, total)), workers=3)
    assert len(told) == 8  # nothing is left to do


def test_preparing_for_some_steps_in_shares_decodes_what_they_read_and_no_more(
    tmp_path: Path, store: EpisodeStore
):
    folder = tmp_path / "cache"
    sampler = WindowSampler(store, 2, 1, seed=0, cache=DecodedCache(folder, 1 << 20))
    for rank in (0, 1):
        sampler.prepare(lambda done, total: None, 1, range(3, 5), (rank, 2))
    prepared = {file.name for file in files_in(folder)}
    assert 0 < len(prepared) < 8
    for step in (3, 4):
        sampler.batch(step)
    assert {file.name for file in files_in(folder)} == prepared


def test_a_file_in_the_place_of_the_cache_is_named_before_anything_is_decoded(
    tmp_path: Path, store: EpisodeStore
):
    (tmp_path / "cache").write_text("mine")
    cache = DecodedCache(tmp_path / "cache", 1 << 20)
    for use in (lambda: cache.file(store, 0, FRONT), lambda: cache.reserve(store, [0], [FRONT])):
        with pytest.raises(StoreError, match=r"cannot write to the cache .*LOOPDIT_CACHE=FOLDER"):
            use()


def test_a_disk_without_space_is_named_with_what_to_do_and_leaves_nothing_behind(
    tmp_path: Path, store: EpisodeStore
):
    cache = DecodedCache(tmp_path / "cache", 1 << 20)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(StoreError, match=r"cannot decode .* LOOPDIT_CACHE=FOLDER"):
            cache.file(store, 0, FRONT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert files_in(tmp_path / "cache") == []
    assert cache.file(store, 0, FRONT).stat().st_size == BYTES


def test_what_a_killed_writer_left_is_taken_over_or_makes_room(tmp_path: Path, store: EpisodeStore):
    cache = DecodedCache(tmp_path / "cache", 2 * BYTES)
    kept = cache.file(store, 0, FRONT)
    (tmp_path / "cache" / f".{kept.name}x.part").write_bytes(bytes(BYTES))
    second = cache.file(store, 1, FRONT)
    assert second.stat().st_size == BYTES
    assert sum(file.stat().st_size for file in files_in(tmp_path / "cache")) <= 2 * BYTES
    (tmp_path / "cache" / f".{second.name}.part").write_bytes(b"half of it")
    second.unlink()
    assert cache.file(store, 1, FRONT).stat().st_size == BYTES


def decode_all(folder: Path, path: Path, most: int) -> None:
    store = EpisodeStore.open(path)
    cache = DecodedCache(folder, most)
    for index in [*range(4)] * 5:
        try:
            size = cache.file(store, index, FRONT).stat().st_size
        except FileNotFoundError:  # the other process made room between the two calls
            continue
        assert size == BYTES


@pytest.mark.system
def test_several_processes_share_a_cache_that_is_too_small_for_them(
    tmp_path: Path, store: EpisodeStore
):
    context = multiprocessing.get_context("spawn")
    arguments = (tmp_path / "cache", store.path, 2 * BYTES)
    processes = [context.Process(target=decode_all, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    left = files_in(tmp_path / "cache")
    assert {file.stat().st_size for file in left} == {BYTES}
    assert not [file for file in left if file.name.startswith(".")]


def test_the_environment_chooses_folder_and_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("LOOPDIT_CACHE", raising=False)
    monkeypatch.delenv("LOOPDIT_CACHE_GIB", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert DecodedCache.default().folder == tmp_path / "loopdit" / "episodes"
    assert DecodedCache.default().max_bytes == 20 << 30
    monkeypatch.setenv("LOOPDIT_CACHE", str(tmp_path / "big disk"))
    monkeypatch.setenv("LOOPDIT_CACHE_GIB", "0.5")
    assert DecodedCache.default().folder == tmp_path / "big disk" / "episodes"
    assert DecodedCache.default().max_bytes == 1 << 29
    monkeypatch.setenv("LOOPDIT_CACHE_GIB", "much")
    with pytest.raises(ConfigError, match=r"LOOPDIT_CACHE_GIB=much is no size"):
        DecodedCache.default()
