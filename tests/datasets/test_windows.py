import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopdit.datasets.decoded_cache import DecodedCache
from loopdit.datasets.mixing import DataPart
from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.store import Episode, EpisodeStore, EpisodeWriter
from loopdit.datasets.windows import Batch, WindowSampler
from loopdit.errors import ConfigError, StoreError

MakeEpisode = Callable[[int, int], Episode]


def slow_window(episode: Episode, step: int, horizon: int) -> tuple[np.ndarray, list[bool]]:
    actions, valid = [], []
    for ahead in range(step, step + horizon):
        inside = ahead < len(episode.actions)
        actions.append(episode.actions[ahead if inside else -1])
        valid.append(inside)
    return np.array(actions), valid


def equal(one: Batch, other: Batch) -> bool:
    return (
        np.array_equal(one.actions, other.actions)
        and np.array_equal(one.valid, other.valid)
        and np.array_equal(one.observed, other.observed)
        and all(np.array_equal(v, other.observations[k]) for k, v in one.observations.items())
    )


@pytest.fixture(scope="module")
def opened(
    tmp_path_factory: pytest.TempPathFactory, spec: PolicySpec, episode: MakeEpisode
) -> EpisodeStore:
    """Episodes of 5, 1 and 8 steps: 14 windows."""
    path = tmp_path_factory.mktemp("windows") / "store"
    writer = EpisodeWriter.create(path, spec, {})
    for seed, length in enumerate((5, 1, 8)):
        writer.append(episode(seed, length))
    return EpisodeStore.open(path)


@pytest.fixture
def cache(tmp_path: Path) -> DecodedCache:
    return DecodedCache(tmp_path / "cache", 1 << 20)


@pytest.mark.parametrize("ram_bytes", [0, 1 << 30], ids=["vectors in a file", "vectors in memory"])
@pytest.mark.parametrize("horizon", [1, 3, 20])
def test_every_window_of_an_epoch_comes_once_and_equals_the_slow_version(
    opened: EpisodeStore, episode: MakeEpisode, horizon: int, ram_bytes: int, cache: DecodedCache
):
    sampler = WindowSampler(opened, horizon, 7, seed=3, cache=cache, ram_bytes=ram_bytes)
    assert sampler.windows == 14
    expected = {
        episode(seed, length).observations["proprio"][step].tobytes(): (seed, length, step)
        for seed, length in enumerate((5, 1, 8))
        for step in range(length)
    }
    met: list[tuple[int, int, int]] = []
    for batch in (sampler.batch(0), sampler.batch(1)):
        assert batch.observed.all()
        for row in range(7):
            seed, length, step = expected[batch.observations["proprio"][row].tobytes()]
            met.append((seed, length, step))
            source = episode(seed, length)
            actions, valid = slow_window(source, step, horizon)
            np.testing.assert_array_equal(batch.actions[row], actions)
            assert batch.valid[row].tolist() == valid
            for camera in ("images.front", "images.wrist"):
                np.testing.assert_array_equal(
                    batch.observations[camera][row], source.observations[camera][step]
                )
    assert sorted(met) == sorted(expected.values())


@pytest.mark.parametrize("frames", ["raw", "zstd"])
@pytest.mark.parametrize("history", [2, 3, 9])
def test_a_history_is_the_steps_before_padded_by_the_first_of_the_same_episode(
    tmp_path: Path,
    spec: PolicySpec,
    episode: MakeEpisode,
    cache: DecodedCache,
    history: int,
    frames: str,
):
    writer = EpisodeWriter.create(tmp_path / "store", spec, {}, frames=frames)
    sources = [episode(seed, length) for seed, length in enumerate((5, 1, 8))]
    for source in sources:
        writer.append(source)
    sampler = WindowSampler(
        EpisodeStore.open(tmp_path / "store"), 2, 14, seed=1, history=history, cache=cache
    )
    batch = sampler.batch(0)
    assert batch.observations["images.front"].shape == (14, history, 4, 4, 3)
    met: list[tuple[int, int]] = []
    for row in range(14):
        latest = batch.observations["proprio"][row, -1].tobytes()
        seed, step = next(
            (seed, step)
            for seed, source in enumerate(sources)
            for step, proprio in enumerate(source.observations["proprio"])
            if proprio.tobytes() == latest
        )
        met.append((seed, step))
        for back in range(history):
            position = history - 1 - back
            assert batch.observed[row, position] == (step - back >= 0)
            for name, values in sources[seed].observations.items():
                np.testing.assert_array_equal(
                    batch.observations[name][row, position], values[max(0, step - back)]
                )
        np.testing.assert_array_equal(batch.actions[row, 0], sources[seed].actions[step])
    assert len(set(met)) == 14


def test_the_slices_of_several_processes_are_the_batch_of_one(opened: EpisodeStore):
    sampler = WindowSampler(opened, 3, batch_size=6, seed=2, history=2)
    whole = sampler.batch(4)
    slices = [sampler.batch(4, part=(rank, 3)) for rank in range(3)]
    for name, values in whole.observations.items():
        np.testing.assert_array_equal(
            values, np.concatenate([one.observations[name] for one in slices])
        )
    np.testing.assert_array_equal(whole.actions, np.concatenate([one.actions for one in slices]))
    with pytest.raises(ConfigError, match=r"batch_size=6 cannot be shared equally by 4"):
        sampler.batch(0, part=(0, 4))


def test_only_the_chosen_episodes_are_read(opened: EpisodeStore):
    chosen = WindowSampler([DataPart(opened, [0, 2])], 2, 13, seed=0)
    assert chosen.windows == 13
    lone_step = opened.arrays(1)["proprio"][0]
    assert lone_step.tobytes() not in {p.tobytes() for p in chosen.batch(0).observations["proprio"]}


def test_jpegs_that_the_cache_cannot_hold_are_decoded_at_each_use_and_the_user_is_told(
    tmp_path: Path, spec: PolicySpec, episode: MakeEpisode, cache: DecodedCache
):
    writer = EpisodeWriter.create(tmp_path / "store", spec, {}, frames="jpeg")
    for seed in range(3):
        writer.append(episode(seed, 6))
    store = EpisodeStore.open(tmp_path / "store")
    small = DecodedCache(tmp_path / "small", 10)
    direct = WindowSampler(store, 2, 7, seed=0, history=2, cache=small)
    cached = WindowSampler(store, 2, 7, seed=0, history=2, cache=cache)
    assert all(equal(direct.batch(step), cached.batch(step)) for step in range(4))
    assert "/store does not fit the cache of decoded episodes" in direct.notes[0]
    assert not any("does not fit" in note for note in cached.notes)
    assert not any(small.folder.glob("*"))


def test_compressed_frames_that_the_cache_cannot_hold_are_refused_with_what_to_set(
    tmp_path: Path, spec: PolicySpec, episode: MakeEpisode
):
    EpisodeWriter.create(tmp_path / "store", spec, {}, frames="zstd").append(episode(0, 6))
    store = EpisodeStore.open(tmp_path / "store")
    with pytest.raises(StoreError, match=r"/store must be decoded .* LOOPDIT_CACHE_GIB=GIB"):
        WindowSampler(store, 2, 7, seed=0, cache=DecodedCache(tmp_path / "small", 100))


def test_a_batch_keeps_the_dtypes_of_the_data_and_may_be_written_to(opened: EpisodeStore):
    sampler = WindowSampler(opened, horizon=2, batch_size=3, seed=0)
    batch = sampler.batch(0)
    assert batch.actions.shape == (3, 2, 3)
    assert batch.actions.dtype == np.float32
    assert batch.valid.dtype == np.bool_
    assert batch.observations["images.front"].dtype == np.uint8
    for array in (batch.actions, *batch.observations.values()):
        array[:] = 0
    assert sampler.batch(0).actions.any()


@given(seed=st.integers(0, 2**64 - 1), batch_size=st.integers(1, 40), step=st.integers(0, 10**6))
def test_a_batch_depends_on_the_seed_and_the_step_alone(
    opened: EpisodeStore, seed: int, batch_size: int, step: int
):
    used = WindowSampler(opened, 3, batch_size, seed)
    used.batch(0)
    used.batch(step + 5)
    fresh = WindowSampler(opened, 3, batch_size, seed)
    assert equal(used.batch(step), fresh.batch(step))


@given(batch_size=st.integers(1, 40), seed=st.integers(0, 99))
def test_every_epoch_has_each_window_once_however_batches_cut_it(
    opened: EpisodeStore, batch_size: int, seed: int
):
    sampler = WindowSampler(opened, 1, batch_size, seed)
    epochs = 3
    steps = -(-epochs * sampler.windows // batch_size)
    rows = np.concatenate([sampler.batch(s).observations["proprio"][:, 0] for s in range(steps)])
    in_epochs = rows[: epochs * sampler.windows].reshape(epochs, -1)
    for epoch in in_epochs:
        assert len(set(epoch.tolist())) == sampler.windows
    assert not np.array_equal(in_epochs[0], in_epochs[1])


def test_another_seed_gives_another_order(opened: EpisodeStore):
    one, other = (WindowSampler(opened, 1, 14, seed).batch(0) for seed in (0, 1))
    assert not equal(one, other)


def test_the_order_of_an_epoch_never_changes_between_releases(opened: EpisodeStore):
    """A run resumed after an upgrade would otherwise skip windows and repeat others."""
    sampler = WindowSampler(opened, 1, batch_size=14, seed=5)
    proprio = np.concatenate([opened.arrays(i)["proprio"][:, 0] for i in range(3)])
    order = [proprio.tolist().index(v) for v in sampler.batch(1).observations["proprio"][:, 0]]
    assert order == [10, 7, 4, 5, 1, 9, 11, 6, 12, 13, 8, 0, 2, 3]


def test_batches_do_not_depend_on_which_collector_finished_first(
    tmp_path: Path, opened: EpisodeStore, spec: PolicySpec, episode: MakeEpisode
):
    writer = EpisodeWriter.create(tmp_path / "other order", spec, {})
    for seed, length in ((2, 8), (0, 5), (1, 1)):
        writer.append(episode(seed, length))
    other = WindowSampler(EpisodeStore.open(tmp_path / "other order"), 4, 6, seed=0)
    mine = WindowSampler(opened, 4, 6, seed=0)
    assert all(equal(mine.batch(step), other.batch(step)) for step in range(5))


def test_a_store_of_more_episodes_than_a_process_may_open_files_is_read(
    tmp_path: Path, spec: PolicySpec, episode: MakeEpisode
):
    writer = EpisodeWriter.create(tmp_path / "store", spec, {})
    for seed in range(40):
        writer.append(episode(seed, 1))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (50, hard))
    try:
        sampler = WindowSampler(EpisodeStore.open(tmp_path / "store"), 1, 40, 0)
        frames = sampler.batch(0).observations["images.front"]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    expected = {episode(seed, 1).observations["images.front"].tobytes() for seed in range(40)}
    assert {frame.tobytes() for frame in frames} == expected


def test_a_store_without_episodes_is_refused(tmp_path: Path, spec: PolicySpec):
    EpisodeWriter.create(tmp_path / "empty", spec, {})
    with pytest.raises(StoreError, match=r"/empty has no episodes to train on. Record some"):
        WindowSampler(EpisodeStore.open(tmp_path / "empty"), 4, 6, seed=0)


def test_a_store_whose_listed_episode_is_gone_is_refused(opened: EpisodeStore):
    gone = replace(opened, episodes=[replace(opened.episodes[0], id="episode_000099")])
    with pytest.raises(StoreError, match=r"episode_000099/.* has 0 bytes"):
        WindowSampler(gone, 4, 6, seed=0)


@pytest.mark.parametrize(
    ("horizon", "batch_size", "seed", "refusal"),
    [(0, 1, 0, "horizon is 0"), (1, 0, 0, "batch_size is 0"), (1, 1, -1, "seed is -1")],
)
def test_settings_without_a_meaning_are_refused(
    opened: EpisodeStore, horizon: int, batch_size: int, seed: int, refusal: str
):
    with pytest.raises(ConfigError, match=refusal):
        WindowSampler(opened, horizon, batch_size, seed)
