"""What windows have of the actions in flight, against a version that looks it up step by step."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from loopdit.datasets.decoded_cache import DecodedCache
from loopdit.datasets.episode import EXECUTED_ACTION
from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.store import Episode, EpisodeStore, EpisodeWriter
from loopdit.datasets.windows import WindowSampler
from loopdit.errors import ConfigError, StoreError

MakeEpisode = Callable[[int, int], Episode]
LENGTHS = (5, 1, 8)


def executed(source: Episode, seed: int) -> np.ndarray:
    noise = np.random.default_rng([seed, 1]).normal(size=source.actions.shape)
    return (source.actions + noise).astype(np.float32)


def make_store(
    path: Path, spec: PolicySpec, episode: MakeEpisode, change: Callable[[int, Episode], Episode]
) -> tuple[EpisodeStore, list[Episode]]:
    writer = EpisodeWriter.create(path, spec, {})
    sources = [change(seed, episode(seed, length)) for seed, length in enumerate(LENGTHS)]
    for source in sources:
        writer.append(source)
    return EpisodeStore.open(path), sources


def with_executed(seed: int, source: Episode) -> Episode:
    other = np.arange(len(source.actions))
    return replace(source, extras={EXECUTED_ACTION: executed(source, seed), "reward": other})


@pytest.mark.parametrize("ram_bytes", [0, 1 << 30], ids=["vectors in a file", "vectors in memory"])
@pytest.mark.parametrize("in_flight", [1, 3, 12])
def test_a_window_has_what_was_executed_from_its_step_on(
    tmp_path: Path, spec: PolicySpec, episode: MakeEpisode, in_flight: int, ram_bytes: int
):
    store, sources = make_store(tmp_path / "store", spec, episode, with_executed)
    cache = DecodedCache(tmp_path / "cache", 1 << 20)
    sampler = WindowSampler(
        store, 2, 14, seed=3, history=2, cache=cache, ram_bytes=ram_bytes, in_flight=in_flight
    )
    batch = sampler.batch(0)
    assert batch.executed is not None
    assert batch.executed.dtype == np.float32
    for row, (_, step) in enumerate(sampler.places(0)):
        proprio = batch.observations["proprio"][row, -1]
        seed = next(
            seed
            for seed, source in enumerate(sources)
            if any(np.array_equal(proprio, p) for p in source.observations["proprio"])
        )
        source = sources[seed]
        last = len(source.actions) - 1
        for ahead in range(in_flight):
            there = min(step + ahead, last)
            np.testing.assert_array_equal(
                batch.executed[row, ahead], source.extras[EXECUTED_ACTION][there]
            )
    assert sampler.notes == ()


def test_where_nobody_recorded_what_was_executed_the_labels_are_taken_unfiltered_and_that_is_said(
    tmp_path: Path, spec: PolicySpec, episode: MakeEpisode
):
    store, _ = make_store(tmp_path / "store", spec, episode, lambda seed, source: source)
    plain = WindowSampler(store, 3, 14, seed=0)
    filtered = WindowSampler(store, 3, 14, seed=0, actions=lambda a: 0 * a, in_flight=3)
    batch = filtered.batch(0)
    assert not batch.actions.any()
    np.testing.assert_array_equal(batch.executed, plain.batch(0).actions)
    assert len(filtered.notes) == 1
    assert "/store does not say which actions were executed" in filtered.notes[0]


def test_what_is_in_flight_changes_nothing_else_of_a_batch_and_is_absent_unless_asked_for(
    tmp_path: Path, spec: PolicySpec, episode: MakeEpisode
):
    store, _ = make_store(tmp_path / "store", spec, episode, with_executed)
    plain, told = (
        WindowSampler(store, 3, 14, seed=0, in_flight=in_flight).batch(0) for in_flight in (0, 2)
    )
    assert plain.executed is None
    np.testing.assert_array_equal(plain.actions, told.actions)
    np.testing.assert_array_equal(plain.observations["proprio"], told.observations["proprio"])


def test_an_extra_that_cannot_be_executed_actions_is_refused_with_its_episode(
    tmp_path: Path, spec: PolicySpec, episode: MakeEpisode
):
    def without_the_gripper(seed: int, source: Episode) -> Episode:
        return replace(source, extras={EXECUTED_ACTION: executed(source, seed)[:, :2]})

    store, _ = make_store(tmp_path / "store", spec, episode, without_the_gripper)
    with pytest.raises(StoreError, match=r"executed_action of episode_000000 .* \(5, 2\)"):
        WindowSampler(store, 3, 14, seed=0, in_flight=2)
    with pytest.raises(ConfigError, match=r"in_flight is -1\. Use 0 or more"):
        WindowSampler(store, 3, 14, seed=0, in_flight=-1)
