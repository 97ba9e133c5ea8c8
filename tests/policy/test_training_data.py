"""What a training makes of its data, and what it refuses of it before it begins."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.policy.policies import SMALL, small_spec, small_store
from tests.policy.trainings import config, curve, rows

from loopdit.datasets.episode import Episode
from loopdit.datasets.episode_filter import EpisodeFilter
from loopdit.datasets.spec import PROPRIO
from loopdit.datasets.store import EpisodeStore, EpisodeWriter
from loopdit.errors import ConfigError, SpecMismatch, StoreError
from loopdit.eval.seeds import trained_seeds
from loopdit.policy.checkpoint import load_checkpoint
from loopdit.policy.training.data import open_data
from loopdit.policy.training.train import train


def anonymous(path: Path, episodes: int = 4, said: str = "fold the towel") -> EpisodeStore:
    """Episodes of nobody knows which seed and outcome, as of a real robot."""
    spec = small_spec()
    writer = EpisodeWriter.create(path, spec, {})
    for number in range(episodes):
        rng = np.random.default_rng(1000 + number)
        frames = rng.integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
        proprio = rng.normal(size=(8, 3)).astype(np.float32)
        actions = rng.uniform(0, 1, (8, 2)).astype(np.float32)
        observations = {"images.camera0": frames, PROPRIO: proprio}
        writer.append(Episode(observations, actions, said.format(number), None, None))
    return EpisodeStore.open(path)


def test_several_stores_are_mixed_by_their_weights(tmp_path: Path):
    small_store(tmp_path / "a", episodes=4)
    anonymous(tmp_path / "b")
    both = [str(tmp_path / "a"), str(tmp_path / "b")]
    data = open_data(config(tmp_path, data=both, weights=[0.25, 0.75], batch_size=64))
    sampler = data.sampler()
    found = [episode for step in range(40) for episode, _ in sampler.places(step)]
    share = sum("/b" in episode for episode in found) / len(found)
    assert share == pytest.approx(0.75, abs=0.03)


def test_a_checkpoint_says_which_stores_it_was_trained_on(tmp_path: Path):
    small_store(tmp_path / "a", episodes=4)
    anonymous(tmp_path / "b")
    both = [str(tmp_path / "a"), str(tmp_path / "b")]
    train(config(tmp_path, data=both, weights=[0.5, 0.5], steps=2))
    provenance = load_checkpoint(tmp_path / "out").provenance
    assert provenance["episodes"] == 8
    assert list(trained_seeds(provenance)) == [0, 1, 2, 3]
    each = provenance["data_provenance"]["stores"]
    assert [(part["store"], part["episodes"], part["weight"]) for part in each] == [
        ("a", 4, 0.5),
        ("b", 4, 0.5),
    ]
    assert [part["digest"] for part in each] == [EpisodeStore.open(p).digest() for p in both]


def test_data_without_seeds_claims_none(tmp_path: Path):
    anonymous(tmp_path / "data")
    train(config(tmp_path, steps=2))
    provenance = load_checkpoint(tmp_path / "out").provenance
    assert "data_seeds" not in provenance
    assert list(trained_seeds(provenance)) == []


def test_held_out_episodes_are_in_no_batch(tmp_path: Path):
    store = small_store(tmp_path / "data", episodes=30)
    data = open_data(config(tmp_path, validation=0.2))
    held = {store.episodes[i].id for part in data.validation for i in part.episodes}
    assert 1 <= len(held) <= 14  # binomial(30, 0.2) is above that once in 10^4, and this is fixed
    sampler = data.sampler()
    epoch = -(-sampler.windows // 8)
    seen = {place.split()[0] for step in range(epoch) for place, _ in sampler.places(step)}
    assert seen == {record.id for record in store.episodes} - held


def test_too_few_episodes_to_hold_one_out_are_all_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    small_store(tmp_path / "data", episodes=6)
    train(config(tmp_path, steps=2))
    assert "none is held out (validation=" in capsys.readouterr().out
    assert load_checkpoint(tmp_path / "out").provenance["episodes"] == 6


def test_only_what_passes_the_filter_is_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    small_store(tmp_path / "data", episodes=6)
    train(config(tmp_path, steps=2, filter=EpisodeFilter(limit=2)))
    assert "2 of 6 episodes" in capsys.readouterr().out
    assert load_checkpoint(tmp_path / "out").provenance["episodes"] == 2


def test_episodes_shorter_than_a_chunk_are_padded_dropped_or_refused_as_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    store = small_store(tmp_path / "data", episodes=6)  # of 6 to 9 steps
    horizon = type(config(tmp_path).policy)(width=32, action_horizon=8, actions_per_token=2)
    long = sum(record.length >= 8 for record in store.episodes)
    assert 0 < long < 6
    train(config(tmp_path, steps=2, policy=horizon))
    said = capsys.readouterr().out
    assert "shorter than a chunk of 8 actions: episode_" in said
    assert load_checkpoint(tmp_path / "out").provenance["episodes"] == 6

    train(config(tmp_path, steps=2, policy=horizon, short_episodes="drop", overwrite=True))
    assert load_checkpoint(tmp_path / "out").provenance["episodes"] == long

    with pytest.raises(StoreError, match=r"shorter than a chunk of 8.*short_episodes=pad"):
        train(config(tmp_path, policy=horizon, short_episodes="refuse", overwrite=True))


def test_numbers_that_are_not_finite_are_named_before_training(tmp_path: Path):
    store = small_store(tmp_path / "data", episodes=3)
    file = store.file(1, PROPRIO)
    values = np.fromfile(file, "<f4")
    values[4] = np.nan
    values.tofile(file)
    with pytest.raises(StoreError, match=r"proprio of episode_000001 of .*data is nan at step 1"):
        train(config(tmp_path))
    assert not (tmp_path / "out").exists()


def test_stores_of_different_specs_are_refused_with_the_field(tmp_path: Path):
    small_store(tmp_path / "a")
    small_store(tmp_path / "b", spec=small_spec(proprio=5))
    with pytest.raises(SpecMismatch, match=r"proprio.shape is \[3\], there \[5\]"):
        train(config(tmp_path, data=[str(tmp_path / "a"), str(tmp_path / "b")]))
    assert not (tmp_path / "out").exists()


def test_how_many_threads_read_ahead_changes_nothing(tmp_path: Path):
    small_store(tmp_path / "data")
    for workers in (0, 1, 3):
        train(config(tmp_path, out=str(tmp_path / f"{workers}"), workers=workers, steps=6))
    assert curve(tmp_path / "0") == curve(tmp_path / "1") == curve(tmp_path / "3")
    assert [row["step"] for row in rows(tmp_path / "0")] == [6]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weights": [0.5]}, r"weights=\[0.5\] has 1 numbers for 2 data sets"),
        ({"data": []}, "names no episode store"),
        ({"data": [1, 2]}, "names no episode store"),
        ({"short_episodes": "skip"}, "Use pad, drop or refuse"),
        ({"validation": 1.0}, "validation=1.0"),
    ],
)
def test_data_options_that_cannot_work_are_refused(
    tmp_path: Path, changes: dict[str, object], said: str
):
    with pytest.raises(ConfigError, match=said):
        config(tmp_path, **{"data": ["a", "b"], "weights": [], **changes})


def test_a_held_out_task_that_nothing_trains_is_said_and_not_validated_on(tmp_path: Path):
    anonymous(tmp_path / "data", episodes=8, said="do task{}")
    told = replace(SMALL, instruction="task")
    data = open_data(config(tmp_path, policy=told, validation=0.3))
    assert data.validation == []
    assert any("3 of 3 held-out episodes" in note for note in data.notes)
    train(config(tmp_path, policy=told, validation=0.3, steps=2))
    assert "validation" not in rows(tmp_path / "out")[-1]
    by_words = replace(SMALL, instruction="words")  # of which "do" is known
    assert len(open_data(config(tmp_path, policy=by_words, validation=0.3)).validation) == 1
