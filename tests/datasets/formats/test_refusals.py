"""Foreign data that nobody foresaw: one error that names file, episode and key, and no store."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from tests.datasets.formats.replay_buffers import push_t, write_buffer
from tests.datasets.formats.rlds_episodes import foreign_episode, write_data_set
from tests.datasets.formats.robomimic_files import write_source

from loopdit.datasets.formats.convert import convert
from loopdit.datasets.store import EpisodeStore
from loopdit.errors import ConfigError, LoopditError, StoreError


def link_in_a_circle(data: Any) -> None:
    data["demo_1/obs/again"] = h5py.SoftLink("/data/demo_1")


def dangle(data: Any) -> None:
    del data["demo_1"]
    data["demo_1"] = h5py.SoftLink("/nothing")


def overflow(data: Any) -> None:
    data["demo_1/actions"][2, 1] = 1e300


def give_a_type_of_two(data: Any) -> None:
    length = len(data["demo_1/actions"])
    data["demo_1/pairs"] = np.zeros(length, [("a", "f4"), ("b", "i4")])


def lose_pixels(data: Any) -> None:
    shape = data["demo_1/obs/agentview_image"].shape
    del data["demo_1/obs/agentview_image"]
    data["demo_1/obs/agentview_image"] = np.zeros((shape[0], 0, *shape[2:]), np.float32)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (link_in_a_circle, r"lift\.hdf5, episode 1 of .*recursion"),
        (dangle, r"lift\.hdf5, demo_1 cannot be found in the file"),
        (overflow, r"lift\.hdf5, demo_1: action of the episode is not finite at step 2"),
        (give_a_type_of_two, r"lift\.hdf5, demo_1: the extra 'pairs' .*drop:"),
        (lose_pixels, r"lift\.hdf5, demo_1: the frames 'obs/agentview_image' .*no pixels"),
    ],
)
def test_a_bad_demo_is_named_or_left_out(tmp_path: Path, damage: Callable[[Any], None], said: str):
    write_source(tmp_path / "lift.hdf5")
    whole = convert(tmp_path / "lift.hdf5", tmp_path / "whole.zarr")
    with h5py.File(tmp_path / "lift.hdf5", "r+") as file:
        damage(file["data"])
    with pytest.raises(StoreError, match=said):
        convert(tmp_path / "lift.hdf5", tmp_path / "lift.zarr")
    again = convert(tmp_path / "lift.hdf5", tmp_path / "lift.zarr", skip_bad=True)
    assert again.episodes + again.already == whole.episodes - 1
    assert len(again.skipped) == 1


def test_an_episode_that_no_store_can_hold_makes_no_store(tmp_path: Path):
    write_source(tmp_path / "lift.hdf5")
    with h5py.File(tmp_path / "lift.hdf5", "r+") as file:
        data: Any = file["data"]
        for demo in data.values():
            demo["k" * 300] = np.zeros(len(demo["actions"]))
    with pytest.raises(StoreError, match=r"lift\.hdf5, demo_\d+: an extra .*kkk"):
        convert(tmp_path / "lift.hdf5", tmp_path / "lift.zarr")
    assert not (tmp_path / "lift.zarr").exists()


@pytest.mark.parametrize(
    "arguments", ['{"env_kwargs": [1]}', '{"env_kwargs": {"control_freq": "a"}}']
)
def test_environment_arguments_of_another_shape_are_no_traceback(tmp_path: Path, arguments: str):
    write_source(tmp_path / "lift.hdf5")
    with h5py.File(tmp_path / "lift.hdf5", "r+") as file:
        file["data"].attrs["env_args"] = arguments
    with pytest.raises(LoopditError, match=r"lift\.hdf5"):
        convert(tmp_path / "lift.hdf5", tmp_path / "lift.zarr")


def test_floats_that_are_said_to_be_whole_numbers_are_not_cut_off(tmp_path: Path):
    write_data_set(tmp_path / "set", foreign_episode(0))
    source = next((tmp_path / "set").rglob("features.json")).parent
    text = (source / "features.json").read_text()
    described = json.loads(text)
    steps = described["featuresDict"]["features"]["steps"]["sequence"]["feature"]
    steps["featuresDict"]["features"]["action"]["tensor"]["dtype"] = "int64"
    (source / "features.json").write_text(json.dumps(described))
    with pytest.raises(StoreError, match=r"episode 0: 'action' has floats where .* int64"):
        convert(source, tmp_path / "set.zarr", rate_hz=5)
    (source / "features.json").write_text(text.replace('"float32"', '"bfloat16"'))
    with pytest.raises(StoreError, match=r"features\.json describes .*'bfloat16'"):
        convert(source, tmp_path / "set.zarr", rate_hz=5)


@pytest.mark.parametrize("splits", [None, ["train"], [{"name": "train", "shardLengths": ["x"]}]])
def test_splits_of_another_shape_are_told(tmp_path: Path, splits: Any):
    write_data_set(tmp_path / "set", foreign_episode(0))
    source = next((tmp_path / "set").rglob("features.json")).parent
    (source / "dataset_info.json").write_text(json.dumps({"splits": splits}))
    with pytest.raises(StoreError, match=r"dataset_info\.json does not list its splits"):
        convert(source, tmp_path / "set.zarr", rate_hz=5)


def test_chunks_that_are_not_there_are_told(tmp_path: Path):
    write_buffer(tmp_path / "push.zarr", push_t())
    zarr.open_group(tmp_path / "push.zarr", mode="r")  # whole
    assert not [n for n in imported(tmp_path, "one") if "lacks" in n]
    chunk = next(p for p in (tmp_path / "push.zarr/data/img").iterdir() if p.name[0].isdigit())
    chunk.unlink()
    assert [n for n in imported(tmp_path, "two") if "data/img lacks 1 of its chunks" in n]


def imported(folder: Path, name: str) -> list[str]:
    return convert(folder / "push.zarr", folder / f"{name}.zarr", rate_hz=10).notes


def test_what_is_made_never_lies_in_what_it_is_made_of(tmp_path: Path, store: Path):
    write_buffer(tmp_path / "push.zarr", push_t())
    for source in (tmp_path / "push.zarr", store):
        with pytest.raises(StoreError, match="into itself"):
            convert(source, source, rate_hz=10)
        for to in ("", "rlds"):
            with pytest.raises(StoreError, match="it is inside of"):
                convert(source, source / "data/out", to=to)
        assert not (source / "data/out").exists()


def test_going_on_with_frames_kept_otherwise_is_refused(tmp_path: Path):
    write_buffer(tmp_path / "push.zarr", push_t())
    convert(tmp_path / "push.zarr", tmp_path / "out.zarr", rate_hz=10, frames="zstd")
    with pytest.raises(StoreError, match="its frames are kept as zstd"):
        convert(tmp_path / "push.zarr", tmp_path / "out.zarr", rate_hz=10)
    again = convert(tmp_path / "push.zarr", tmp_path / "out.zarr", rate_hz=10, frames="zstd")
    assert (again.episodes, again.already) == (
        0,
        len(EpisodeStore.open(tmp_path / "out.zarr").episodes),
    )


def test_options_of_another_target_are_refused(tmp_path: Path, store: Path):
    with pytest.raises(ConfigError, match="frames=jpeg"):
        convert(store, tmp_path / "out", to="rlds", frames="jpeg")
    for to in ("", "rlds"):
        with pytest.raises(ConfigError, match=r"codec=png .*to=lerobot"):
            convert(store, tmp_path / "out", to=to, codec="png")
    assert not (tmp_path / "out").exists()


def test_a_folder_above_a_data_set_tells_where_it_is(tmp_path: Path):
    write_buffer(tmp_path / "a/b/push.zarr", push_t())
    with pytest.raises(StoreError, match=r"a/b looks like diffusion_policy"):
        convert(tmp_path / "a", tmp_path / "out.zarr", rate_hz=10)


def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path):
    with pytest.raises(StoreError, match="too long"):
        convert(tmp_path / ("k" * 300), tmp_path / "out.zarr")
    with pytest.raises(StoreError, match="too long"):
        convert(tmp_path / ("k" * 300), tmp_path / "out.zarr", format="rlds")
