"""Diffusion Policy's replay buffers: what is read, what is written again, what is refused."""

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from tests.datasets.formats.replay_buffers import content, push_t, write_buffer

from loopdit.datasets.formats import diffusion_policy
from loopdit.datasets.formats.diffusion_policy_writer import write
from loopdit.datasets.formats.foreign import OURS, Export, ForeignData, ForeignEpisode
from loopdit.errors import ConfigError, StoreError


def export(data: ForeignData, **changes: Any) -> Export:
    episodes = (data.episode(i) for i in range(len(data)))
    return Export(episodes, len(data), 10.0, ["img"], {}, data.facts, **changes)


def zipped(folder: Path, archive: Path, inside: str) -> Path:
    with zipfile.ZipFile(archive, "w") as file:
        for item in folder.rglob("*"):
            file.write(item, f"{inside}{item.relative_to(folder)}")
    return archive


@pytest.mark.parametrize("kind", ["folder", "folder in a folder", "zip", "zip with a folder"])
def test_each_episode_has_its_own_steps_wherever_the_buffer_is(tmp_path: Path, kind: str):
    source = push_t("uint8")
    path = tmp_path / "pusht" / "replay_buffer.zarr"
    write_buffer(path, source)
    if kind == "folder in a folder":
        path = path.parent
    elif kind.startswith("zip"):
        inside = "pusht/replay.zarr/" if "folder" in kind else ""
        path = zipped(path, tmp_path / "pusht.zarr.zip", inside)
    assert diffusion_policy.recognizes(path)
    data = diffusion_policy.open(path)
    assert len(data) == 3
    for index, (start, end) in enumerate([(0, 3), (3, 4), (4, 9)]):
        steps = data.episode(index).steps
        assert set(steps) == set(source)
        for key, values in source.items():
            np.testing.assert_array_equal(steps[key], values[start:end], strict=True)


@pytest.mark.parametrize("frames", ["uint8", "float32"])
def test_a_buffer_written_again_holds_the_same_arrays(tmp_path: Path, frames: str):
    write_buffer(tmp_path / "a.zarr", push_t(frames))
    data = diffusion_policy.open(tmp_path / "a.zarr")
    assert data.episode(2).steps["img"].dtype == np.uint8
    lost = write(tmp_path / "b.zarr", export(data))
    assert lost == ["the rate of 10 Hz (in .zattrs, which only loopdit reads)"]
    assert content(tmp_path / "b.zarr") == content(tmp_path / "a.zarr")


def test_frames_in_floats_that_are_no_whole_numbers_are_given_as_they_are(tmp_path: Path):
    """Fractions of 1 are for the checks to scale, and what is neither for them to refuse."""
    source = push_t()
    source["img"] /= 255
    write_buffer(tmp_path / "a.zarr", source)
    assert diffusion_policy.open(tmp_path / "a.zarr").episode(0).steps["img"].dtype == np.float32


def test_meta_arrays_go_with_their_episodes_or_with_the_set(tmp_path: Path):
    write_buffer(tmp_path / "a.zarr", push_t())
    meta = zarr.open_group(tmp_path / "a.zarr", mode="a")["meta"]
    assert isinstance(meta, zarr.Group)
    meta.create_array("quality", shape=(3,), dtype="f4")[:] = np.array([0.1, 0.2, 0.3])
    meta.create_array("camera", shape=(2, 2), dtype="f8")[:] = np.eye(2)
    data = diffusion_policy.open(tmp_path / "a.zarr")
    assert json.loads(json.dumps(data.facts)) == data.facts
    episodes = [data.episode(index) for index in (2, 0)]
    write(tmp_path / "b.zarr", Export(iter(episodes), 2, 10.0, [], {}, data.facts))
    after = content(tmp_path / "b.zarr")
    assert after["meta/quality"][2] == pytest.approx([0.3, 0.1])
    assert after["meta/camera"] == content(tmp_path / "a.zarr")["meta/camera"]
    assert after["meta/episode_ends"][2] == [5, 8]


def test_what_lies_behind_the_last_end_is_no_episode_s(tmp_path: Path):
    write_buffer(tmp_path / "a.zarr", push_t(), ends=[3, 7])
    data = diffusion_policy.open(tmp_path / "a.zarr")
    assert [len(data.episode(i).steps["action"]) for i in range(len(data))] == [3, 4]


def recording(length: int, **steps: np.ndarray) -> ForeignEpisode:
    frames = np.full((length, 4, 4, 3), length, np.uint8)
    plain = {"img": frames, "state": np.zeros((length, 2)), "action": np.zeros((length, 3))}
    return ForeignEpisode(
        f"episode {length}",
        {**plain, **steps},
        {"instruction": (f"lift {length}",)},
        {"seed": length, "success": length % 2 == 0},
    )


def exported(*episodes: ForeignEpisode, **changes: Any) -> Export:
    return Export(iter(episodes), len(episodes), 12.5, ["img"], {}, {}, **changes)


def test_what_the_buffer_has_no_place_for_is_said_and_comes_back(tmp_path: Path):
    episodes = [recording(2), recording(3)]
    lost = write(tmp_path / "a.zarr", exported(*episodes, ours={"mapping": {"a": 1}}))
    assert [phrase.split(" (")[0] for phrase in lost] == [
        "the rate of 12.5 Hz",
        "names, units and limits of elements",
        "the text 'instruction' of each episode",
        "'seed' of each episode",
        "'success' of each episode",
    ]
    data = diffusion_policy.open(tmp_path / "a.zarr")
    assert data.facts[OURS] == {"mapping": {"a": 1}}
    for index, before in enumerate(episodes):
        after = data.episode(index)
        assert after.texts == before.texts
        assert before.metadata.items() <= after.metadata.items()


def test_a_key_with_a_slash_makes_no_group_and_comes_back(tmp_path: Path):
    extra = np.arange(6.0).reshape(2, 3)
    write(tmp_path / "a.zarr", exported(recording(2, **{"obs/pose": extra, "obs.pose": extra + 1})))
    data = zarr.open_group(tmp_path / "a.zarr", mode="r")["data"]
    assert isinstance(data, zarr.Group)
    assert sorted(data.group_keys()) == []
    steps = diffusion_policy.open(tmp_path / "a.zarr").episode(0).steps
    np.testing.assert_array_equal(steps["obs/pose"], extra)
    np.testing.assert_array_equal(steps["obs.pose"], extra + 1)


def test_arrays_are_chunked_and_compressed_as_the_buffer_does_it(tmp_path: Path):
    frames = np.zeros((30, 200, 250, 3), np.uint8)
    write(tmp_path / "a.zarr", exported(recording(30, img=frames)))
    described = json.loads((tmp_path / "a.zarr/data/img/.zarray").read_text())
    assert described["zarr_format"] == 2
    assert described["chunks"] == [14, 200, 250, 3]  # the least that makes two megabytes
    assert described["compressor"]["cname"] == "lz4"


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (recording(3, extra=np.zeros(3)), "episode 3: only some episodes have 'extra'"),
        (recording(3, img=np.zeros((3, 8, 4, 3), np.uint8)), r"episode 3: 'img' has the shape"),
        (recording(3, action=np.full((3, 3), "a")), "'action' has the type <U1"),
    ],
)
def test_episodes_that_differ_are_refused_and_nothing_is_left(
    tmp_path: Path, second: ForeignEpisode, message: str
):
    first = [] if "<U1" in message else [recording(2)]
    with pytest.raises(StoreError, match=message):
        write(tmp_path / "a.zarr", exported(*first, second))
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_already_is_left_as_it_is(tmp_path: Path):
    write_buffer(tmp_path / "a.zarr", push_t())
    before = content(tmp_path / "a.zarr")
    with pytest.raises(StoreError, match="already"):
        write(tmp_path / "a.zarr", exported(recording(2)))
    assert content(tmp_path / "a.zarr") == before
    with pytest.raises(StoreError, match=r"zipped buffers are only read"):
        write(tmp_path / "a.zarr.zip", exported(recording(2)))


def test_names_and_time_stamps_give_the_mapping(tmp_path: Path):
    random = np.random.default_rng(0)
    source = {
        "camera0_rgb": random.integers(0, 256, (9, 4, 4, 3)).astype(np.uint8),
        "robot0_eef_pos": random.normal(size=(9, 3)).astype(np.float32),
        "robot0_gripper_width": random.normal(size=(9, 1)).astype(np.float32),
        "robot0_demo_start_pose": random.normal(size=(9, 6)),
        "action": random.normal(size=(9, 7)).astype(np.float32),
        "timestamp": 1.7e9 + np.arange(9) * 0.1,
    }
    write_buffer(tmp_path / "umi.zarr", source)
    mapping = diffusion_policy.open(tmp_path / "umi.zarr").suggested_mapping()
    assert mapping.cameras == {"camera0": ("camera0_rgb",)}
    assert [part.keys for part in mapping.proprio] == [
        ("robot0_eef_pos",), ("robot0_gripper_width",)
    ]  # fmt: skip
    assert mapping.rate_hz == 10
    del source["timestamp"], source["action"]
    write_buffer(tmp_path / "other.zarr", source)
    with pytest.raises(ConfigError, match="no key for the action"):
        diffusion_policy.open(tmp_path / "other.zarr").suggested_mapping()


def test_a_damaged_buffer_is_refused_by_name(tmp_path: Path):
    path = tmp_path / "a.zarr"
    write_buffer(path, push_t())
    chunk = path / "data/img/1.0.0.0"
    chunk.write_bytes(chunk.read_bytes()[:20])
    data = diffusion_policy.open(path)
    assert len(data.episode(0).steps["img"]) == 3
    with pytest.raises(StoreError, match=r"episode 2: data/img cannot be read"):
        data.episode(2)
    shutil.rmtree(path)
    write_buffer(path, push_t(), ends=[3, 12])
    with pytest.raises(StoreError, match=r"data/action has the shape \(9, 2\).* end at step 12"):
        diffusion_policy.open(path)
    shutil.rmtree(path)
    write_buffer(path, push_t(), ends=[4, 3])
    with pytest.raises(StoreError, match="not the rising ends"):
        diffusion_policy.open(path)


def test_an_unknown_codec_is_named(tmp_path: Path):
    write_buffer(tmp_path / "a.zarr", push_t())
    file = tmp_path / "a.zarr/data/img/.zarray"
    file.write_text(file.read_text().replace('"blosc"', '"imagecodecs_jpegxl"'))
    with pytest.raises(StoreError, match="imagecodecs_jpegxl"):
        diffusion_policy.open(tmp_path / "a.zarr")
