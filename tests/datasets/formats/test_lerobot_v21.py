"""Data sets of LeRobot v2.1, written here without any of our code."""

import json
from pathlib import Path

import numpy as np
import pytest
from tests.datasets.formats.lerobot_v21_files import (
    CAMERA,
    LegacyEpisode,
    legacy_episode,
    write_mp4,
    write_v21,
)

from loopdit.datasets.formats import lerobot
from loopdit.errors import StoreError

TASKS = ("open the drawer", "close the drawer")
VIDEO = f"videos/chunk-000/{CAMERA}/episode_000001.mp4"
ROWS = "data/chunk-000/episode_000001.parquet"


@pytest.fixture
def episodes() -> list[LegacyEpisode]:
    made = [legacy_episode(number, length) for number, length in enumerate((9, 15, 4))]
    made[2].task_index[2:] = 1  # the instruction changes on the way
    return made


@pytest.fixture
def root(tmp_path: Path, episodes: list[LegacyEpisode]) -> Path:
    write_v21(tmp_path / "old", episodes, TASKS)
    return tmp_path / "old"


def test_every_episode_is_read_with_its_numbers_frames_and_texts(
    root: Path, episodes: list[LegacyEpisode]
):
    data = lerobot.open(root)
    assert len(data) == 3
    for number, wanted in enumerate(episodes):
        found = data.episode(number)
        assert np.array_equal(found.steps["observation.state"], wanted.state)
        assert np.array_equal(found.steps["action"], wanted.action)
        levels = found.steps[CAMERA].mean(axis=(1, 2, 3))
        np.testing.assert_allclose(levels, wanted.frames[:, 0, 0, 0], atol=3)
    assert data.episode(0).texts == {"task": (TASKS[0],)}
    assert data.episode(1).texts == {"task": (TASKS[1],)}
    assert data.episode(2).texts == {"task": (TASKS[0],) * 2 + (TASKS[1],) * 2}


def test_the_mapping_follows_from_the_info(root: Path):
    data = lerobot.open(root)
    mapping = data.suggested_mapping()
    assert mapping.cameras == {"front": (CAMERA,)}
    assert mapping.proprio[0].labels == ("waist", "elbow", "gripper")
    assert mapping.action[0].labels == ("waist", "elbow")
    assert "koch" in mapping.action_frame
    assert mapping.rate_hz == 10
    assert data.facts["robot_type"] == "koch"


def test_version_2_0_is_read_the_same_way(root: Path):
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps(info | {"codebase_version": "v2.0"}))
    (root / "meta/episodes_stats.jsonl").unlink()
    assert len(lerobot.open(root).episode(1).steps["action"]) == 15


def test_chunks_of_episodes_are_found(root: Path):
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps(info | {"chunks_size": 1}))
    for number in (1, 2):
        for kind, name in (("data", "parquet"), (f"videos/{{}}/{CAMERA}", "mp4")):
            old = root / kind.format("chunk-000") if "{}" in kind else root / "data/chunk-000"
            new = Path(str(old).replace("chunk-000", f"chunk-{number:03d}"))
            new.mkdir(parents=True)
            (old / f"episode_{number:06d}.{name}").rename(new / f"episode_{number:06d}.{name}")
    data = lerobot.open(root)
    assert [len(data.episode(number).steps[CAMERA]) for number in range(3)] == [9, 15, 4]


@pytest.mark.parametrize("length", [12, 17])
def test_a_video_of_another_length_is_refused_by_file_episode_and_key(
    root: Path, episodes: list[LegacyEpisode], length: int
):
    write_mp4(root / VIDEO, np.resize(episodes[1].frames, (length, 48, 64, 3)))
    data = lerobot.open(root)
    with pytest.raises(
        StoreError, match=rf"episode 1, {CAMERA}: .*episode_000001\.mp4 has {length} frames"
    ):
        data.episode(1)
    assert len(data.episode(2).steps[CAMERA]) == 4


def test_rows_of_another_number_than_the_list_says_are_refused(root: Path):
    (root / ROWS).write_bytes((root / ROWS.replace("000001", "000000")).read_bytes())
    with pytest.raises(StoreError, match=r"episode 1: the file has 9 steps, .*meta says 15"):
        lerobot.open(root).episode(1)


def test_a_damaged_line_of_the_list_is_told(root: Path):
    file = root / "meta/episodes.jsonl"
    first, second, third = file.read_text().splitlines()
    file.write_text("\n".join([first, second[:20], third]))
    with pytest.raises(StoreError, match=r"episodes\.jsonl, line 2: .*has no episode_index or"):
        lerobot.open(root)


def test_a_missing_list_of_tasks_is_told(root: Path):
    (root / "meta/tasks.jsonl").unlink()
    with pytest.raises(StoreError, match=r"cannot read .*tasks\.jsonl"):
        lerobot.open(root)
