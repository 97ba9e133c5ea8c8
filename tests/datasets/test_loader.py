import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopdit.datasets.loader import Batches
from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.store import Episode, EpisodeStore, EpisodeWriter
from loopdit.datasets.windows import Batch, WindowSampler
from loopdit.errors import ConfigError, StoreError

MakeEpisode = Callable[[int, int], Episode]


@pytest.fixture(scope="module")
def sampler(
    tmp_path_factory: pytest.TempPathFactory, spec: PolicySpec, episode: MakeEpisode
) -> WindowSampler:
    path = tmp_path_factory.mktemp("loader") / "store"
    writer = EpisodeWriter.create(path, spec, {})
    for seed in range(5):
        writer.append(episode(seed, 3 + seed))
    return WindowSampler(EpisodeStore.open(path), horizon=3, batch_size=4, seed=1, history=2)


def reading_threads() -> int:
    return sum(thread.name.startswith("batches") for thread in threading.enumerate())


def content(batch: Batch) -> list[bytes]:
    arrays = [*batch.observations.values(), batch.actions, batch.valid, batch.observed]
    return [array.tobytes() for array in arrays]


@settings(max_examples=20)
@given(workers=st.integers(0, 4), first=st.integers(0, 1000), count=st.integers(1, 20))
def test_batches_come_in_order_however_many_threads_read(
    sampler: WindowSampler, workers: int, first: int, count: int
):
    with Batches(sampler, first, workers) as batches:
        read = [content(next(batches)) for _ in range(count)]
    assert read == [content(sampler.batch(first + step)) for step in range(count)]


def test_each_process_reads_its_slice(sampler: WindowSampler):
    with Batches(sampler, 7, workers=2, part=(1, 2)) as batches:
        assert content(next(batches)) == content(sampler.batch(7, part=(1, 2)))


@settings(max_examples=20)
@given(held=st.lists(st.booleans(), min_size=30, max_size=30))
def test_a_batch_that_is_held_keeps_its_content(sampler: WindowSampler, held: list[bool]):
    kept: dict[int, Batch] = {}
    with Batches(sampler, 0, workers=2) as batches:
        for step, is_held in enumerate(held):
            batch = next(batches)
            if is_held:
                kept[step] = batch
    for step, batch in kept.items():
        assert content(batch) == content(sampler.batch(step))


def test_an_error_of_a_thread_comes_at_its_step_with_its_cause_and_ends_the_threads(
    tmp_path: Path, spec: PolicySpec, episode: MakeEpisode
):
    writer = EpisodeWriter.create(tmp_path / "store", spec, {})
    for seed in range(6):
        writer.append(episode(seed, 1))
    store = EpisodeStore.open(tmp_path / "store")
    sampler = WindowSampler(store, 1, 1, seed=0)
    order = [float(sampler._vectors["proprio"][w, 0]) for w in sampler._order.at(np.arange(6))]  # pyright: ignore[reportPrivateUsage]
    broken = order.index(float(store.arrays(4)["proprio"][0, 0]))
    store.file(4, "images.wrist").write_bytes(b"short")
    batches = Batches(sampler, 0, workers=2)
    for _ in range(broken):
        next(batches)
    with pytest.raises(StoreError, match=r"has 5 bytes.*episode_000004 of") as caught:
        next(batches)
    assert caught.value.__notes__ == [f"while reading the batch of step {broken}"]
    assert reading_threads() == 0
    assert next(batches, None) is None


def test_no_more_than_twice_as_many_batches_as_threads_are_read_ahead(sampler: WindowSampler):
    started: list[int] = []

    class Counting(WindowSampler):
        def __init__(self) -> None:
            pass

        def batch(self, step: int, part: tuple[int, int] = (0, 1)) -> Batch:
            started.append(step)
            return sampler.batch(step, part)

    with Batches(Counting(), 0, workers=3) as batches:
        for _ in range(5):
            next(batches)
        time.sleep(0.2)
        assert max(started) < 5 + 2 * 3


def test_closing_leaves_no_thread(sampler: WindowSampler):
    with Batches(sampler, 0, workers=3) as batches:
        next(batches)
        assert reading_threads() > 0
    assert reading_threads() == 0
    assert list(batches) == []


def test_a_negative_number_of_workers_is_refused(sampler: WindowSampler):
    with pytest.raises(ConfigError, match="workers is -1"):
        Batches(sampler, 0, workers=-1)
