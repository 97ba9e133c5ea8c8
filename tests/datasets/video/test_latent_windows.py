from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from loopdit.datasets.mixing import DataPart
from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.store import Episode, EpisodeStore, EpisodeWriter
from loopdit.datasets.video.clips import ClipConfig
from loopdit.datasets.video.latent_store import LatentKey, LatentStore
from loopdit.datasets.video.latent_windows import LATENTS, LatentSampler
from loopdit.errors import StoreError

LENGTHS = (9, 14, 10)
SHAPE = (3, 16, 2, 4)


@pytest.fixture
def data(tmp_path: Path, spec: PolicySpec, episode: Callable[[int, int], Episode]) -> EpisodeStore:
    writer = EpisodeWriter.create(tmp_path / "data", spec, {"made by": "a test"})
    for seed, length in enumerate(LENGTHS):
        writer.append(episode(seed, length))
    return EpisodeStore.open(tmp_path / "data")


def encoded(data: EpisodeStore, folder: Path, clips: ClipConfig) -> LatentStore:
    """Latents that say where they come from: 100 times the episode, and the step."""
    kept = LatentStore.at(folder, LatentKey.of(clips, "images.front", "0" * 16), SHAPE)
    for number, record in enumerate(data.episodes):
        steps = np.array(clips.steps(record.length))
        says = 100 * number + steps
        kept.write(record.digest, np.ones((len(steps), *SHAPE)) * says[:, None, None, None, None])
    return kept


@pytest.mark.parametrize("every", [1, 4])
def test_each_clip_comes_once_an_epoch_with_the_actions_that_follow_its_last_frame(
    data: EpisodeStore, tmp_path: Path, every: int
):
    clips = ClipConfig(every=every)
    parts = [DataPart(data, range(3))]
    kept = encoded(data, tmp_path / "kept", clips)
    sampler = LatentSampler(parts, kept, horizon=4, batch_size=1, seed=3)
    places = [(e, t) for e, n in enumerate(LENGTHS) for t in range(0, n, every)]
    assert sampler.windows == len(places)
    met: list[tuple[int, int]] = []
    for step in range(sampler.windows):
        batch = sampler.batch(step)
        assert batch.observations[LATENTS].dtype == np.float32
        (says,) = np.unique(batch.observations[LATENTS])
        number, at = divmod(int(says), 100)
        met.append((number, at))
        arrays, length = data.arrays(number), LENGTHS[number]
        ahead = np.arange(at, at + 4)
        np.testing.assert_array_equal(batch.valid[0], ahead < length)
        np.testing.assert_array_equal(
            batch.actions[0], arrays["action"][np.minimum(ahead, length - 1)]
        )
        np.testing.assert_array_equal(batch.observations["proprio"][0], arrays["proprio"][at])
        np.testing.assert_array_equal(batch.observed[0], np.arange(at - 8, at + 1) >= 0)
        said = sampler.instructions[batch.instruction[0]]
        assert said == data.episodes[number].instruction
        ((name, place),) = sampler.places(step)
        assert name.startswith(data.episodes[number].id)
        assert place == at
    assert sorted(met) == places


def test_a_batch_follows_from_seed_and_step_and_is_shared_by_processes(
    data: EpisodeStore, tmp_path: Path
):
    clips = ClipConfig()
    kept = encoded(data, tmp_path / "kept", clips)

    def sampler(seed: int) -> LatentSampler:
        return LatentSampler([DataPart(data, range(3))], kept, 2, 6, seed)

    one, same, other = sampler(0), sampler(0), sampler(1)
    same.batch(0)
    whole = one.batch(7).observations[LATENTS]
    np.testing.assert_array_equal(same.batch(7).observations[LATENTS], whole)
    assert not np.array_equal(other.batch(7).observations[LATENTS], whole)
    halves = [one.batch(7, (rank, 2)).observations[LATENTS] for rank in range(2)]
    np.testing.assert_array_equal(np.concatenate(halves), whole)


def test_an_episode_without_latents_is_named_before_training(data: EpisodeStore, tmp_path: Path):
    clips = ClipConfig()
    kept = LatentStore.at(tmp_path / "kept", LatentKey.of(clips, "images.front", "0" * 16), SHAPE)
    with pytest.raises(StoreError, match="has no latents of 3 episodes, as episode_000000"):
        LatentSampler([DataPart(data, range(3))], kept, 2, 6, 0)


def test_latents_that_were_cut_short_are_named(data: EpisodeStore, tmp_path: Path):
    clips = ClipConfig()
    kept = encoded(data, tmp_path / "kept", clips)
    file = kept.file(data.episodes[1].digest)
    file.write_bytes(file.read_bytes()[:-2])
    sampler = LatentSampler([DataPart(data, range(3))], kept, 2, 33, 0)
    with pytest.raises(StoreError, match="the latents of episode_000001"):
        sampler.batch(0)
