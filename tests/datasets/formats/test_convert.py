"""Conversions between stores and a foreign format, here RLDS, by way of files."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from tests.datasets.formats.rlds_episodes import foreign_episode, same_episode, write_data_set

from loopdit.datasets.episode import Episode
from loopdit.datasets.formats import rlds
from loopdit.datasets.formats.convert import convert
from loopdit.datasets.formats.foreign import ForeignEpisode
from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.store import EpisodeStore, EpisodeWriter
from loopdit.errors import ConfigError, StoreError

EXCERPT = Path(__file__).parent / "bridge_excerpt"
SAMPLE = Path(__file__).parents[4] / "shared" / "data" / "bridge_sample"


def same_contents(one: EpisodeStore, other: EpisodeStore, metadata: bool = True) -> None:
    """Assert that both stores have the same spec and the same episodes."""
    assert other.spec.differences(one.spec) == []
    assert len(one.episodes) == len(other.episodes)
    for index in range(len(one.episodes)):
        here, there = one.episode(index), other.episode(index)
        assert (here.instruction, here.success, here.seed) == (
            there.instruction,
            there.success,
            there.seed,
        )
        assert set(here.observations) == set(there.observations)
        for name, values in here.observations.items():
            np.testing.assert_array_equal(there.observations[name], values)
        np.testing.assert_array_equal(there.actions, here.actions)
        assert set(here.extras) == set(there.extras)
        for name, values in here.extras.items():
            np.testing.assert_array_equal(there.extras[name], values)
        if metadata:
            assert here.metadata == there.metadata


def test_bridge_becomes_a_store_that_says_what_its_numbers_are(tmp_path: Path):
    converted = convert(EXCERPT, tmp_path / "bridge.zarr", mapping="bridge")
    assert (converted.episodes, converted.steps) == (2, 20)
    assert (converted.lost, converted.skipped) == ([], [])
    assert "left out, black in every episode: image_3" in converted.notes
    store = EpisodeStore.open(tmp_path / "bridge.zarr")
    assert [c.name for c in store.spec.cameras] == [f"images.image_{i}" for i in range(3)]
    assert store.spec.control_period_s == pytest.approx(0.2)
    assert store.spec.action.labels == ("dx", "dy", "dz", "drx", "dry", "drz", "gripper")
    assert "gripper 0 closed, 1 open" in store.spec.action_frame
    source = rlds.open(EXCERPT)
    for index in range(2):
        record, foreign = store.episodes[index], source.episode(index)
        assert (record.instruction, record.success, record.seed) == (
            "put carrot on plate",
            None,
            None,
        )
        arrays = store.arrays(index)
        np.testing.assert_array_equal(arrays["action"], foreign.steps["action"])
        np.testing.assert_array_equal(arrays["proprio"], foreign.steps["observation/state"])
        np.testing.assert_array_equal(
            arrays["images.image_1"], foreign.steps["observation/image_1"]
        )
        np.testing.assert_array_equal(
            store.extras(index)["language_embedding"], foreign.steps["language_embedding"]
        )
    # Real episodes: the gripper is commanded in between while it moves, and nothing was clipped.
    grippers = np.concatenate([store.arrays(i)["action"][:, 6] for i in range(2)])
    assert grippers.min() == 0
    assert grippers.max() == 1
    assert ((grippers > 0.1) & (grippers < 0.9)).any()


def test_exporting_to_the_same_format_restores_every_key_the_black_camera_too(tmp_path: Path):
    convert(EXCERPT, tmp_path / "bridge.zarr", mapping="bridge")
    converted = convert(tmp_path / "bridge.zarr", tmp_path / "again", to="rlds")
    assert (converted.episodes, converted.steps) == (2, 20)
    assert all("JPEG" in phrase for phrase in converted.lost)
    data, again = rlds.open(EXCERPT), rlds.open(tmp_path / "again")
    for index in range(2):
        same_episode(again.episode(index), data.episode(index))
    # And the way back needs neither mapping nor rate.
    convert(tmp_path / "again", tmp_path / "back.zarr")
    same_contents(
        EpisodeStore.open(tmp_path / "bridge.zarr"), EpisodeStore.open(tmp_path / "back.zarr")
    )


def test_the_whole_sample_converts_and_comes_back(tmp_path: Path):
    if not SAMPLE.exists():
        pytest.skip("the whole Bridge sample is not here")
    converted = convert(SAMPLE, tmp_path / "bridge.zarr", mapping="bridge")
    assert (converted.episodes, converted.steps) == (25, 250)
    convert(tmp_path / "bridge.zarr", tmp_path / "again", to="rlds")
    data, again = rlds.open(SAMPLE), rlds.open(tmp_path / "again")
    for index in range(25):
        same_episode(again.episode(index), data.episode(index))


def test_our_own_recordings_survive_a_foreign_format(tmp_path: Path, store: Path):
    # The spec's names, units, limits, frame and rate travel in a file of ours beside TFDS's.
    convert(store, tmp_path / "rlds", to="rlds")
    convert(tmp_path / "rlds", tmp_path / "back.zarr")
    back = EpisodeStore.open(tmp_path / "back.zarr")
    same_contents(EpisodeStore.open(store), back, metadata=False)
    assert [r.seed for r in back.episodes] == [0, 1, 2]
    first = rlds.open(tmp_path / "rlds").episode(0)
    assert first.steps["reward"].tolist() == [0, 0, 0, 0, 1]  # seed 0 is a success
    assert rlds.open(tmp_path / "rlds").episode(1).steps["reward"].tolist() == [0]


def test_a_store_is_copied_with_its_frames_encoded_anew(tmp_path: Path, store: Path):
    converted = convert(store, tmp_path / "zstd.zarr", frames="zstd")
    assert (converted.episodes, converted.steps) == (3, 14)
    copy = EpisodeStore.open(tmp_path / "zstd.zarr")
    assert copy.frames == "zstd"
    assert copy.digest() == EpisodeStore.open(store).digest()
    assert copy.provenance == {"made by": "a test"}
    convert(tmp_path / "zstd.zarr", f"memory://{tmp_path.name}/copy.zarr")
    convert(f"memory://{tmp_path.name}/copy.zarr", tmp_path / "back.zarr")
    same_contents(EpisodeStore.open(store), EpisodeStore.open(tmp_path / "back.zarr"))


def test_foreign_data_go_to_another_set_without_a_store_between(tmp_path: Path):
    source = write_data_set(tmp_path / "one", foreign_episode(0), foreign_episode(1))
    convert(source, tmp_path / "two", to="rlds", rate_hz=10)
    one, two = rlds.open(source), rlds.open(tmp_path / "two")
    for index in range(2):
        same_episode(two.episode(index), one.episode(index))


@pytest.fixture
def with_a_bad_one(tmp_path: Path) -> Path:
    """Three RLDS episodes, the second with a NaN in its actions."""
    bad = foreign_episode(1)
    actions = bad.steps["action"].copy()
    actions[2, 1] = np.nan
    bad = replace(bad, steps={**bad.steps, "action": actions})
    return write_data_set(tmp_path / "source", foreign_episode(0), bad, foreign_episode(2))


def test_a_bad_episode_stops_the_conversion_and_is_left_out_on_request(
    tmp_path: Path, with_a_bad_one: Path
):
    target = tmp_path / "out.zarr"
    with pytest.raises(StoreError, match=r"-00001, episode 1: 'action' is nan at step 2, element"):
        convert(with_a_bad_one, target, rate_hz=10)
    assert len(EpisodeStore.open(target).episodes) == 1

    # Going on with the same store takes the good ones that are missing, once.
    converted = convert(with_a_bad_one, target, rate_hz=10, skip_bad=True)
    assert converted.episodes == 1
    assert len(converted.skipped) == 1
    assert "episode 1: 'action' is nan" in converted.skipped[0]
    numbers = [
        EpisodeStore.open(target).metadata(i)["foreign"]["episode_metadata/number"]
        for i in range(2)
    ]
    assert numbers == [0, 2]
    assert convert(with_a_bad_one, target, rate_hz=10, skip_bad=True).episodes == 0
    assert len(EpisodeStore.open(target).episodes) == 2


def test_a_conversion_that_was_killed_goes_on_and_ends_in_the_same_store(tmp_path: Path):
    source = write_data_set(tmp_path / "source", *(foreign_episode(i) for i in range(5)))
    killed, whole = tmp_path / "killed.zarr", tmp_path / "whole.zarr"
    program = (
        "import os, signal, sys\n"
        "from loopdit.datasets.formats.convert import convert\n"
        "def kill(done, total, note):\n"
        "    if done == 3:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "convert(sys.argv[1], sys.argv[2], rate_hz=10, progress=kill)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, source, killed], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert len(EpisodeStore.open(killed).episodes) == 3
    assert convert(source, killed, rate_hz=10).episodes == 2
    convert(source, whole, rate_hz=10)
    assert EpisodeStore.open(killed).digest() == EpisodeStore.open(whole).digest()


def test_a_first_episode_that_is_bad_does_not_decide_the_spec(tmp_path: Path):
    bad = foreign_episode(0, action=np.full((4, 4), np.inf, np.float32))
    source = write_data_set(tmp_path / "source", bad, foreign_episode(1))
    with pytest.raises(StoreError, match=r"episode 0: 'action' is inf at step 0"):
        convert(source, tmp_path / "out.zarr", rate_hz=10)
    assert not (tmp_path / "out.zarr").exists()
    assert convert(source, tmp_path / "out.zarr", rate_hz=10, skip_bad=True).episodes == 1
    only_bad = write_data_set(tmp_path / "bad", bad)
    with pytest.raises(StoreError, match=r"has no episode that can be used"):
        convert(only_bad, tmp_path / "none.zarr", rate_hz=10, skip_bad=True)
    assert not (tmp_path / "none.zarr").exists()


def test_a_camera_that_is_black_in_some_episodes_is_kept_and_told(tmp_path: Path):
    dark = np.zeros((4, 6, 8, 3), np.uint8)
    source = write_data_set(
        tmp_path / "source", foreign_episode(0, observation__wrist=dark), foreign_episode(1)
    )
    converted = convert(source, tmp_path / "out.zarr", rate_hz=10)
    assert any(
        note.startswith("wrist is black in 1 episodes, kept: source-train.tfrecord-00000")
        for note in converted.notes
    )
    assert len(EpisodeStore.open(tmp_path / "out.zarr").spec.cameras) == 2


def test_float_frames_are_stored_as_bytes_and_what_that_lost_is_told(tmp_path: Path):
    levels = np.random.default_rng(0).integers(0, 256, (4, 6, 8, 3), dtype=np.uint8)
    exact = (levels / 255.0).astype(np.float32)
    source = write_data_set(tmp_path / "exact", foreign_episode(0, observation__front=exact))
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text(
        yaml.safe_dump(
            {
                "cameras": {"front": "observation/front"},
                "proprio": "observation/state",
                "action": "action",
                "rate_hz": 10,
            }
        )
    )
    converted = convert(source, tmp_path / "exact.zarr", mapping=str(mapping))
    assert "the float frames of front are kept as uint8" in converted.notes
    assert converted.lost == []
    frames = EpisodeStore.open(tmp_path / "exact.zarr").arrays(0)["images.front"]
    np.testing.assert_array_equal(frames, levels)
    convert(tmp_path / "exact.zarr", tmp_path / "back", to="rlds")
    np.testing.assert_array_equal(
        rlds.open(tmp_path / "back").episode(0).steps["observation/front"], exact
    )

    between = np.full((4, 6, 8, 3), 0.3337, np.float32)
    source = write_data_set(tmp_path / "between", foreign_episode(0, observation__front=between))
    converted = convert(source, tmp_path / "between.zarr", mapping=str(mapping))
    assert converted.lost == ["what the float frames of front had below 1/255"]


def test_a_rate_has_to_come_from_somewhere(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"does not say how many control steps a second"):
        convert(EXCERPT, tmp_path / "out.zarr")
    converted = convert(EXCERPT, tmp_path / "out.zarr", mapping="bridge", rate_hz=2.5)
    assert "the rate is 2.5 Hz, though the mapping says 5 Hz" in converted.notes
    assert EpisodeStore.open(tmp_path / "out.zarr").spec.control_period_s == pytest.approx(0.4)


def test_sources_that_cannot_be_read_are_refused_before_anything_is_written(
    tmp_path: Path, store: Path
):
    target = tmp_path / "out.zarr"
    with pytest.raises(StoreError, match=r"there is nothing at .*nowhere"):
        convert(tmp_path / "nowhere", target)
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match=r"looks like none of the formats rlds, lerobot"):
        convert(tmp_path / "empty", target)
    with pytest.raises(ConfigError, match=r"format=tfds is unknown\. Choose one of: rlds, ler"):
        convert(EXCERPT, target, format="tfds")
    with pytest.raises(ConfigError, match=r"mapping= says what a foreign data set's keys mean"):
        convert(store, target, mapping="bridge")
    assert not target.exists()


def test_a_store_made_otherwise_is_not_added_to(store: Path):
    with pytest.raises(StoreError, match=r"there is an episode store already, made otherwise"):
        convert(EXCERPT, store, mapping="bridge")
    assert len(EpisodeStore.open(store).episodes) == 3


def test_what_was_converted_says_where_it_came_from(tmp_path: Path):
    convert(EXCERPT, tmp_path / "out.zarr", mapping="bridge")
    provenance = EpisodeStore.open(tmp_path / "out.zarr").provenance
    assert provenance["made_by"] == "policy-data convert"
    assert provenance["versions"]["loopdit"]
    assert provenance["foreign"]["format"] == "rlds"
    assert provenance["foreign"]["name"] == "bridge_excerpt"
    assert provenance["foreign"]["mapping"]["convention"] == "delta"
    assert os.sep not in provenance["foreign"]["name"]


def test_progress_is_told_for_each_episode(tmp_path: Path, with_a_bad_one: Path):
    told: list[tuple[int, int, str]] = []
    convert(
        with_a_bad_one,
        tmp_path / "out.zarr",
        rate_hz=10,
        skip_bad=True,
        progress=lambda done, total, note: told.append((done, total, note)),
    )
    assert told == [(1, 3, "4 steps"), (3, 3, "8 steps, 1 left out")]


def test_extras_and_metadata_of_our_own_episodes_survive_too(
    tmp_path: Path, spec: PolicySpec, episode: Callable[[int, int], Episode]
):
    recorded = replace(
        episode(0, 5),
        success=None,
        seed=None,
        extras={"force": np.arange(5.0), "obs/depth": np.ones((5, 2, 2), np.uint16)},
        metadata={"foreign": {"operator": "A"}},
    )
    EpisodeWriter.create(tmp_path / "one.zarr", spec, {}).append(recorded)
    convert(tmp_path / "one.zarr", tmp_path / "rlds", to="rlds")
    convert(tmp_path / "rlds", tmp_path / "two.zarr")
    one, two = (EpisodeStore.open(tmp_path / f"{n}.zarr") for n in ("one", "two"))
    same_contents(one, two, metadata=False)
    assert two.metadata(0)["foreign"] == {"operator": "A"}


def test_a_foreign_episode_is_read_only_where_it_is_needed(tmp_path: Path):
    """A camera's first lit frame ends the look at the episodes before the conversion."""
    from loopdit.datasets.formats.importing import import_data

    read: list[int] = []
    opened = rlds.open(write_data_set(tmp_path / "s", *(foreign_episode(i) for i in range(5))))

    class Counting:
        path, facts, notes = opened.path, opened.facts, opened.notes

        def __len__(self) -> int:
            return len(opened)

        def episode(self, index: int) -> ForeignEpisode:
            read.append(index)
            return opened.episode(index)

        suggested_mapping = staticmethod(opened.suggested_mapping)

    import_data(Counting(), "rlds", rate_hz=10)
    assert set(read) == {0}
