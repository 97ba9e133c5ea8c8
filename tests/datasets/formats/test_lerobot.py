import json
import resource
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.datasets.formats.lerobot_sample import (
    FRONT,
    LENGTHS,
    WRIST,
    sample_episode,
    sample_episodes,
    sample_export,
)

from loopdit.datasets.formats import lerobot, lerobot_writer
from loopdit.datasets.formats.foreign import OURS, ForeignEpisode
from loopdit.datasets.formats.lerobot_columns import ParquetRows, numbers, numbers_column
from loopdit.datasets.formats.lerobot_info import Feature
from loopdit.datasets.formats.registry import recognized_format
from loopdit.errors import ConfigError, StoreError


def assert_same(found: ForeignEpisode, wanted: ForeignEpisode, frames: bool) -> None:
    """Bit by bit; of lossy frames only that each is where it was."""
    regular = np.arange(len(wanted.steps["action"])) / 10.0
    assert np.array_equal(found.steps["timestamp"], regular.astype(np.float32))
    assert set(found.steps) == {*wanted.steps, "timestamp"}
    for key, values in wanted.steps.items():
        assert found.steps[key].shape == values.shape, key
        assert found.steps[key].dtype == values.dtype, key
        if frames or key not in (FRONT, WRIST):
            assert np.array_equal(found.steps[key], values), key
        else:
            error = np.abs(found.steps[key].astype(int) - values.astype(int))
            assert error.mean(axis=(1, 2, 3)).max() < 4, key
    assert found.texts == wanted.texts
    assert found.metadata == wanted.metadata


def test_png_frames_and_everything_else_come_back_bit_by_bit(tmp_path: Path):
    assert lerobot.write(tmp_path / "set", sample_export(), codec="png") == []
    data = lerobot.open(tmp_path / "set")
    assert len(data) == len(LENGTHS)
    for number, wanted in enumerate(sample_episodes()):
        assert_same(data.episode(number), wanted, frames=True)


@pytest.mark.parametrize("codec", ["auto", "av1", "h264"])
def test_videos_lose_some_of_the_picture_and_no_frame_and_say_how_much(tmp_path: Path, codec: str):
    phrases = lerobot.write(tmp_path / "set", sample_export(), codec=codec)
    data = lerobot.open(tmp_path / "set")
    for number in (2, 0, 1, 2):  # in any order
        assert_same(data.episode(number), sample_episode(number, LENGTHS[number]), frames=False)
    assert [phrase.split(" is lossy")[0] for phrase in phrases] == [FRONT, WRIST]
    assert all("crf 30, PSNR" in phrase for phrase in phrases)


@pytest.mark.parametrize("codec", ["av1", "png"])
def test_episodes_are_found_in_whichever_file_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str
):
    monkeypatch.setattr(lerobot_writer, "_DATA_MB", 0)  # each episode begins a file
    monkeypatch.setattr(lerobot_writer, "_VIDEO_MB", 0)
    lerobot.write(tmp_path / "set", sample_export(), codec=codec)
    assert len(list((tmp_path / "set/data").glob("*/*.parquet"))) == len(LENGTHS)
    assert len(list((tmp_path / "set").glob("videos/*/*/*.mp4"))) == (6 if codec == "av1" else 0)
    data = lerobot.open(tmp_path / "set")
    for number, wanted in enumerate(sample_episodes()):
        assert_same(data.episode(number), wanted, frames=codec == "png")


def test_a_data_set_is_recognized_by_its_info(tmp_path: Path):
    lerobot.write(tmp_path / "set", sample_export((3,)))
    assert recognized_format(tmp_path / "set").NAME == "lerobot"
    (tmp_path / "other/meta").mkdir(parents=True)
    (tmp_path / "other/meta/info.json").write_text('{"name": "a data set of something else"}')
    assert not lerobot.recognizes(tmp_path / "other")
    assert not lerobot.recognizes(tmp_path / "nowhere")


def test_statistics_are_those_of_the_numbers_and_of_pixels_in_0_to_1(tmp_path: Path):
    lerobot.write(tmp_path / "set", sample_export())
    stats = json.loads((tmp_path / "set/meta/stats.json").read_text())
    for key in ("observation.state", "action", "phase"):
        values = np.concatenate([e.steps[key].astype(float) for e in sample_episodes()])
        values = values.reshape(len(values), -1)
        assert stats[key]["count"] == [33]
        np.testing.assert_allclose(stats[key]["mean"], values.mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(stats[key]["std"], values.std(axis=0), rtol=1e-6)
        np.testing.assert_allclose(stats[key]["min"], values.min(axis=0), rtol=1e-6)
        np.testing.assert_allclose(stats[key]["max"], values.max(axis=0), rtol=1e-6)
    pixels = np.concatenate([e.steps[FRONT] for e in sample_episodes()]).reshape(-1, 3) / 255
    assert np.shape(stats[FRONT]["mean"]) == (3, 1, 1)
    np.testing.assert_allclose(np.ravel(stats[FRONT]["mean"]), pixels.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(np.ravel(stats[FRONT]["std"]), pixels.std(axis=0), rtol=1e-6)
    np.testing.assert_allclose(np.ravel(stats[FRONT]["max"]), pixels.max(axis=0), rtol=1e-6)


def test_an_episodes_quantiles_are_numpys(tmp_path: Path):
    lerobot.write(tmp_path / "set", sample_export((20,)), codec="png")
    file = tmp_path / "set/meta/episodes/chunk-000/file-000.parquet"
    row: dict[str, Any] = pq.read_table(file).to_pylist()[0]
    episode = sample_episode(0, 20)
    for name, quantile in (("q01", 0.01), ("q50", 0.5), ("q99", 0.99)):
        expected = np.quantile(episode.steps["action"], quantile, axis=0)
        np.testing.assert_allclose(row[f"stats/action/{name}"], expected)
        pixels = episode.steps[FRONT].reshape(-1, 3)
        levels = np.quantile(pixels, quantile, axis=0, method="inverted_cdf") / 255
        np.testing.assert_allclose(np.ravel(row[f"stats/{FRONT}/{name}"]), levels)


def test_what_we_keep_of_our_own_comes_back_among_the_facts(tmp_path: Path):
    lerobot.write(tmp_path / "set", sample_export((3,)))
    facts = lerobot.open(tmp_path / "set").facts
    assert facts[OURS] == {"mapping": {"kept": True}}
    assert facts["fps"] == 10
    assert facts["features"]["action"]["names"] == ["left", "right"]


def test_a_set_from_lerobot_goes_back_with_its_robot_its_names_and_its_kinds_of_frames(
    tmp_path: Path,
):
    facts: dict[str, Any] = {
        "robot_type": "aloha",
        "total_episodes": 3,
        "splits": {"train": "0:2", "val": "2:3"},
        "features": {
            FRONT: {"dtype": "image", "shape": [64, 80, 3], "names": None},
            WRIST: {"dtype": "video", "shape": [64, 80, 3], "names": None},
            "action": {"dtype": "float64", "shape": [2], "names": {"motors": ["a", "b"]}},
        },
    }
    lerobot.write(tmp_path / "set", replace(sample_export(), facts=facts, images=()))
    info = lerobot.open(tmp_path / "set").facts
    assert info["robot_type"] == "aloha"
    assert info["splits"] == {"train": "0:2", "val": "2:3"}
    assert info["features"]["action"]["names"] == {"motors": ["a", "b"]}
    assert [info["features"][key]["dtype"] for key in (FRONT, WRIST)] == ["image", "video"]


def test_names_tell_cameras_labels_and_absolute_goals_of_motors(tmp_path: Path):
    named = {"observation.state": ("x", "y", "z"), "action": ("pan.pos", "grip.pos")}
    lerobot.write(tmp_path / "set", replace(sample_export((3,)), names=named))
    mapping = lerobot.open(tmp_path / "set").suggested_mapping()
    assert mapping.cameras == {"front": (FRONT,), "wrist": (WRIST,)}
    assert mapping.proprio[0].labels == ("x", "y", "z")
    assert mapping.action[0].labels == ("pan.pos", "grip.pos")
    assert mapping.convention == "absolute"
    assert mapping.rate_hz == 10
    assert mapping.instruction == ("task",)


def test_a_set_without_an_action_needs_a_mapping(tmp_path: Path):
    episode = sample_episode(0, 4)
    steps = {k: v for k, v in episode.steps.items() if k != "action"}
    export = replace(sample_export((4,)), episodes=iter([replace(episode, steps=steps)]))
    lerobot.write(tmp_path / "set", export)
    with pytest.raises(ConfigError, match=r"names no 'action'.*'contact'"):
        lerobot.open(tmp_path / "set").suggested_mapping()


def test_what_lerobot_cannot_hold_is_said(tmp_path: Path):
    episode = sample_episode(0, 4)
    steps = {
        "action": episode.steps["action"],
        "wave": np.ones((4, 2), np.complex128),
        "deep": np.ones((4, 1, 1, 1, 1, 1, 1), np.float32),
        "obs/force": np.ones((4, 1), np.float32),
        "timestamp": np.array([0, 0.1, 0.25, 0.3]),
        "index": np.arange(4),
    }
    export = replace(sample_export((4,)), images=(), rate_hz=12.5)
    export = replace(export, episodes=iter([replace(episode, steps=steps)]))
    phrases = " | ".join(lerobot.write(tmp_path / "set", export))
    for phrase in (
        "wave is left out: LeRobot has no type complex128",
        "deep is left out: LeRobot has no arrays of 6 axes",
        "obs/force is named obs.force",
        "obs/force of shape (T, 1) is read back as (T,)",
        "timestamp is named recorded_timestamp",
        "index is named recorded_index",
        "12.5 Hz is no whole number",
    ):
        assert phrase in phrases
    back = lerobot.open(tmp_path / "set").episode(0).steps
    assert np.array_equal(back["recorded_timestamp"], steps["timestamp"])
    np.testing.assert_allclose(back["timestamp"], np.arange(4) / 12.5, rtol=1e-6)


@pytest.mark.parametrize("change", ["key", "shape", "text", "length"])
def test_episodes_that_are_not_alike_are_refused_by_name_and_leave_nothing(
    tmp_path: Path, change: str
):
    first, second = sample_episode(0, 4), sample_episode(1, 5)
    steps, texts = dict(second.steps), dict(second.texts)
    if change == "key":
        del steps["phase"]
    elif change == "shape":
        steps[FRONT] = steps[FRONT][:, :32]
    elif change == "length":
        steps[FRONT] = steps[FRONT][:4]
    else:
        texts["note"] = ("new",)
    odd = replace(second, steps=steps, texts=texts)
    export = replace(sample_export((4, 5)), episodes=iter([first, odd]))
    with pytest.raises(StoreError, match="episode 1"):
        lerobot.write(tmp_path / "set", export)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_already_is_kept(tmp_path: Path):
    (tmp_path / "set").mkdir()
    with pytest.raises(StoreError, match="something is there already"):
        lerobot.write(tmp_path / "set", sample_export((3,)))


def test_h264_of_an_odd_size_is_refused_before_anything_is_encoded(tmp_path: Path):
    episode = sample_episode(0, 4)
    steps = {**episode.steps, FRONT: episode.steps[FRONT][:, :33]}
    export = replace(sample_export((4,)), episodes=iter([replace(episode, steps=steps)]))
    with pytest.raises(StoreError, match=r"is 80x33; H\.264 needs even sizes"):
        lerobot.write(tmp_path / "set", export, codec="h264")


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow above 30 kB, as on a disk that is full then."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("codec", ["av1", "h264", "png"])
def test_a_full_disk_leaves_nothing(tmp_path: Path, codec: str, small_files: None):
    episode = sample_episode(0, 40)
    noise = np.random.default_rng(0).integers(0, 256, (40, 64, 80, 3), dtype=np.uint8)
    noisy = replace(episode, steps={**episode.steps, FRONT: noise})
    export = replace(sample_export((40, 40)), episodes=iter([noisy, noisy]))
    with pytest.raises(StoreError, match="File too large"):
        lerobot.write(tmp_path / "set", export, codec=codec)
    assert list(tmp_path.iterdir()) == []


SHAPES = st.lists(st.integers(1, 3), max_size=4).map(tuple)
DTYPES = st.sampled_from(["float32", "float64", "int8", "int64", "uint16", "bool", "float16"])


@given(length=st.integers(1, 5), shape=SHAPES, dtype=DTYPES, seed=st.integers(0, 99))
def test_numbers_of_any_shape_go_through_a_column_bit_by_bit(
    length: int, shape: tuple[int, ...], dtype: str, seed: int
):
    values = np.random.default_rng(seed).uniform(-100, 100, (length, *shape)).astype(dtype)
    column = pa.table({"x": numbers_column(values)}).column("x")
    back = numbers(column, Feature("x", dtype, shape or (1,)), "here")
    assert back.dtype == values.dtype
    assert np.array_equal(back, values.reshape(back.shape))
    assert back.shape == (values.shape if shape != (1,) else (length,))


@given(
    group=st.integers(1, 400),
    wanted=st.lists(st.tuples(st.integers(0, 899), st.integers(1, 300)), min_size=1, max_size=6),
)
def test_rows_are_the_ones_asked_for_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, group: int, wanted: list[tuple[int, int]]
):
    file = tmp_path_factory.mktemp("rows") / "a.parquet"
    pq.write_table(pa.table({"x": np.arange(900)}), file, row_group_size=group)
    rows = ParquetRows(file)
    for start, count in wanted:
        stop = min(start + count, 900)
        assert rows.read(start, stop, ["x"]).column("x").to_pylist() == list(range(start, stop))
    rows.close()
