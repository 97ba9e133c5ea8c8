"""LeRobot's data in our stores and back, by `convert`."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.datasets.formats.lerobot_sample import FRONT, LENGTHS, sample_episodes, sample_export
from tests.datasets.formats.lerobot_v21_files import CAMERA, legacy_episode, write_v21

from loopdit.datasets.episode import Episode
from loopdit.datasets.formats import lerobot
from loopdit.datasets.formats.convert import convert
from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.store import EpisodeStore


def test_a_v21_set_becomes_a_store_that_says_what_its_numbers_are(tmp_path: Path):
    episodes = [legacy_episode(number, length) for number, length in enumerate((9, 15))]
    write_v21(tmp_path / "old", episodes, ("open the drawer", "close the drawer"))
    converted = convert(tmp_path / "old", tmp_path / "new")
    assert (converted.episodes, converted.steps) == (2, 24)
    store = EpisodeStore.open(tmp_path / "new")
    assert store.spec.control_period_s == pytest.approx(0.1)
    assert store.spec.proprio.labels == ("waist", "elbow", "gripper")
    assert [camera.name for camera in store.spec.cameras] == ["images.front"]
    for number, wanted in enumerate(episodes):
        found = store.episode(number)
        assert np.array_equal(found.actions, wanted.action)
        assert np.array_equal(found.observations["proprio"], wanted.state)
        levels = found.observations["images.front"].mean(axis=(1, 2, 3))
        np.testing.assert_allclose(levels, wanted.frames[:, 0, 0, 0], atol=3)
    assert store.episodes[1].instruction == "close the drawer"
    # And on to v3.0, which has the same features but no other file than its own version's.
    lost = convert(tmp_path / "new", tmp_path / "v3", to="lerobot").lost
    assert [phrase for phrase in lost if "is lossy" not in phrase] == []
    back = lerobot.open(tmp_path / "v3")
    assert back.facts["robot_type"] == "koch"
    assert np.array_equal(back.episode(1).steps["action"], episodes[1].action)
    assert back.episode(1).steps[CAMERA].shape == (15, 48, 64, 3)


def test_a_lossless_set_is_the_same_after_a_store_was_made_of_it(tmp_path: Path):
    export = sample_export()
    export = replace(export, ours={})
    lerobot.write(tmp_path / "first", export, codec="png")
    convert(tmp_path / "first", tmp_path / "store")
    store = EpisodeStore.open(tmp_path / "store")
    assert [e.success for e in store.episodes] == [True, False, True]
    assert [e.seed for e in store.episodes] == [0, 1, 2]
    convert(tmp_path / "store", tmp_path / "second", to="lerobot")
    first, second = lerobot.open(tmp_path / "first"), lerobot.open(tmp_path / "second")
    for number in range(len(LENGTHS)):
        one, other = first.episode(number), second.episode(number)
        assert set(one.steps) == set(other.steps)
        for key, values in one.steps.items():
            assert values.dtype == other.steps[key].dtype, key
            assert np.array_equal(values, other.steps[key]), key
        assert one.texts == other.texts
        assert one.metadata == other.metadata


def test_videos_stay_videos_and_texts_stay_with_their_steps(tmp_path: Path):
    lerobot.write(tmp_path / "first", replace(sample_export(), ours={}))
    convert(tmp_path / "first", tmp_path / "store")
    convert(tmp_path / "store", tmp_path / "second", to="lerobot")
    second = lerobot.open(tmp_path / "second")
    assert second.facts["features"][FRONT]["dtype"] == "video"
    assert second.episode(2).texts == list(sample_episodes())[2].texts


def test_our_own_episodes_come_back_from_lerobot_with_the_same_spec(
    tmp_path: Path, spec: PolicySpec, episode: Callable[[int, int], Episode], store: Path
):
    lost = convert(store, tmp_path / "set", to="lerobot").lost
    assert all("is lossy" in phrase for phrase in lost)
    convert(tmp_path / "set", tmp_path / "back")
    back = EpisodeStore.open(tmp_path / "back")
    assert back.spec.differences(spec) == []
    for number, length in enumerate((5, 1, 8)):
        wanted, found = episode(number, length), back.episode(number)
        assert np.array_equal(found.actions, wanted.actions)
        assert np.array_equal(found.observations["proprio"], wanted.observations["proprio"])
        assert found.observations["images.front"].shape == (length, 4, 4, 3)
        assert (found.instruction, found.success, found.seed) == (
            wanted.instruction,
            wanted.success,
            wanted.seed,
        )


def test_a_damaged_video_can_be_left_out(tmp_path: Path):
    episodes = [legacy_episode(number, length) for number, length in enumerate((9, 15, 4))]
    write_v21(tmp_path / "old", episodes, ("open", "close"))
    video = tmp_path / "old/videos/chunk-000" / CAMERA / "episode_000001.mp4"
    video.write_bytes(video.read_bytes()[:500])
    converted = convert(tmp_path / "old", tmp_path / "new", skip_bad=True)
    assert converted.episodes == 2
    assert "episode 1" in converted.skipped[0]
    assert CAMERA in converted.skipped[0]
