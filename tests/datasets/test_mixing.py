from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopdit.datasets.mixing import BLOCK, DataPart, MixedOrder, block_quotas, order_of, parts_of
from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.store import Episode, EpisodeStore, EpisodeWriter
from loopdit.datasets.windows import WindowSampler
from loopdit.errors import ConfigError, SpecMismatch, StoreError

MakeEpisode = Callable[[int, int], Episode]
Weights = st.lists(st.floats(0.01, 100), min_size=1, max_size=6)


@pytest.fixture
def two(tmp_path: Path, spec: PolicySpec, episode: MakeEpisode) -> list[EpisodeStore]:
    """Stores "one" with 6 windows and "other" with 9."""
    stores: list[EpisodeStore] = []
    for name, lengths in (("one", (4, 2)), ("other", (3, 3, 3))):
        writer = EpisodeWriter.create(tmp_path / name, spec, {})
        for seed, length in enumerate(lengths):
            writer.append(episode(seed + 100 * len(stores), length))
        stores.append(EpisodeStore.open(tmp_path / name))
    return stores


@given(weights=Weights)
def test_a_block_holds_every_share_to_the_nearest_window(weights: list[float]):
    quotas = block_quotas(weights)
    assert quotas.sum() == BLOCK
    assert np.abs(quotas - np.array(weights) / sum(weights) * BLOCK).max() < 1


@settings(max_examples=20)
@given(
    sizes=st.lists(st.integers(200, 3000), min_size=2, max_size=4),
    seed=st.integers(0, 2**64 - 1),
    data=st.data(),
)
def test_a_mixture_takes_each_part_by_its_weight_and_all_its_windows_in_turn(
    sizes: list[int], seed: int, data: st.DataObject
):
    weights = data.draw(st.lists(st.floats(0.1, 9), min_size=len(sizes), max_size=len(sizes)))
    windows = MixedOrder(sizes, weights, seed).at(np.arange(2 * BLOCK))
    part = np.searchsorted(np.cumsum(sizes), windows, side="right")
    quotas = block_quotas(weights)
    for block in (part[:BLOCK], part[BLOCK:]):
        assert np.bincount(block, minlength=len(sizes)).tolist() == quotas.tolist()
    for index, size in enumerate(sizes):
        own = windows[part == index] - sum(sizes[:index])
        whole_epochs = own[: len(own) // size * size].reshape(-1, size)
        for epoch in whole_epochs:
            assert np.array_equal(np.sort(epoch), np.arange(size))


@settings(max_examples=20)
@given(
    positions=st.lists(st.integers(0, 10**9), min_size=1, max_size=50),
    seed=st.integers(0, 99),
    weights=st.sampled_from([(None, None), (3.0, 1.0)]),
)
def test_a_position_is_found_without_the_ones_before_it(
    positions: list[int],
    seed: int,
    weights: tuple[float | None, float | None],
    two_parts: tuple[DataPart, DataPart],
):
    parts = [replace(part, weight=w) for part, w in zip(two_parts, weights, strict=True)]
    fresh = order_of(parts, (6, 9), seed)
    used = order_of(parts, (6, 9), seed)
    used.at(np.arange(0, 10**6, 1001))
    one_by_one = [int(fresh.at(np.array([position]))[0]) for position in positions]
    assert used.at(np.array(positions)).tolist() == one_by_one


@pytest.fixture(scope="module")
def two_parts(
    tmp_path_factory: pytest.TempPathFactory, spec: PolicySpec, episode: MakeEpisode
) -> tuple[DataPart, DataPart]:
    path = tmp_path_factory.mktemp("mixing") / "store"
    writer = EpisodeWriter.create(path, spec, {})
    writer.append(episode(0, 6))
    writer.append(episode(1, 9))
    store = EpisodeStore.open(path)
    return DataPart(store, [0]), DataPart(store, [1])


def test_the_order_of_a_mixture_never_changes_between_releases():
    """A run resumed after an upgrade would otherwise skip windows and repeat others."""
    windows = MixedOrder([6, 9], [3.0, 1.0], seed=5).at(np.arange(BLOCK - 8, BLOCK + 8))
    assert windows.tolist() == [1, 3, 5, 2, 8, 7, 0, 4, 2, 13, 3, 0, 5, 4, 1, 10]


def test_without_weights_every_window_of_all_parts_comes_once_in_an_epoch(two: list[EpisodeStore]):
    sampler = WindowSampler(
        [DataPart(store, range(9)[: len(store.episodes)]) for store in two],
        horizon=1,
        batch_size=15,
        seed=0,
    )
    assert sampler.windows == 15
    rows = {row.tobytes() for row in sampler.batch(3).observations["proprio"]}
    assert len(rows) == 15


def test_the_parts_of_a_batch_come_from_their_own_stores_by_weight(two: list[EpisodeStore]):
    parts = [DataPart(two[0], [0, 1], weight=3), DataPart(two[1], [0, 1, 2], weight=1)]
    sampler = WindowSampler(parts, horizon=1, batch_size=512, seed=0)
    first = {row.tobytes() for index in range(2) for row in two[0].arrays(index)["proprio"]}
    counts = [
        sum(row.tobytes() in first for row in sampler.batch(step).observations["proprio"])
        for step in range(BLOCK // 512)
    ]
    assert sum(counts) == BLOCK * 3 // 4
    assert min(counts) > 300  # and mixed well: 384 are meant, 84 fewer are 8.6 standard deviations


def test_stores_of_different_specs_are_not_mixed_and_the_field_is_named(
    tmp_path: Path, spec: PolicySpec, episode: MakeEpisode, two: list[EpisodeStore]
):
    slower = replace(spec, control_period_s=0.2)
    EpisodeWriter.create(tmp_path / "slower", slower, {}).append(episode(0, 3))
    stores = [two[0], EpisodeStore.open(tmp_path / "slower")]
    with pytest.raises(
        SpecMismatch, match=r"/one and the data set .*/slower do not match: control_period_s is 0.1"
    ):
        parts_of([DataPart(store, [0]) for store in stores])


@pytest.mark.parametrize(
    ("weights", "refusal"),
    [
        ((1.0, None), "only some data sets have a weight"),
        ((1.0, 0.0), r"the weight of .*/other is 0.0"),
        ((1.0, float("nan")), r"the weight of .*/other is nan"),
        ((1e6, 1.0), "the weight 1.0 of data set 2 of 2 is less than one sample in 65536"),
    ],
)
def test_weights_without_a_meaning_are_refused(
    two: list[EpisodeStore], weights: tuple[float, float | None], refusal: str
):
    parts = [DataPart(store, [0], weight) for store, weight in zip(two, weights, strict=True)]
    with pytest.raises(ConfigError, match=refusal):
        WindowSampler(parts, 1, 1, 0)


def test_a_part_that_a_filter_left_empty_is_refused(two: list[EpisodeStore]):
    with pytest.raises(StoreError, match=r"none of the 3 episodes of .*/other are left"):
        parts_of([DataPart(two[0], [0]), DataPart(two[1], [])])
