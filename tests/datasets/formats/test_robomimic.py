"""robomimic's files and LIBERO's: what is read, what is written again, what is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.datasets.formats.robomimic_files import File, content, write_source

from loopdit.datasets.formats import robomimic
from loopdit.datasets.formats.convert import convert
from loopdit.datasets.formats.foreign import OURS, Export, ForeignData, ForeignEpisode
from loopdit.datasets.formats.robomimic_writer import write
from loopdit.errors import ConfigError, StoreError


def export(data: ForeignData) -> Export:
    episodes = (data.episode(i) for i in range(len(data)))
    return Export(episodes, len(data), 20.0, ["obs/agentview_image"], {}, data.facts)


def test_a_demo_is_read_with_its_keys_its_masks_and_its_attributes(tmp_path: Path):
    write_source(tmp_path / "lift.hdf5")
    data = robomimic.open(tmp_path / "lift.hdf5")
    episodes = [data.episode(i) for i in range(len(data))]
    assert [e.metadata["robomimic"]["demo"] for e in episodes] == [
        "demo_0", "demo_1", "demo_2", "demo_10"
    ]  # fmt: skip
    assert [e.metadata["robomimic"]["masks"] for e in episodes] == [
        ["train"], [], ["train"], ["valid"]
    ]  # fmt: skip
    assert set(episodes[2].steps) == {
        "actions", "states", "rewards", "dones", "obs/agentview_image", "obs/object",
        "obs/robot0_eef_pos", "obs/robot0_eef_quat", "obs/robot0_gripper_qpos",
    }  # fmt: skip
    with File(tmp_path / "lift.hdf5") as file:
        for key, value in episodes[2].steps.items():
            np.testing.assert_array_equal(value, file[f"data/demo_2/{key}"], strict=True)
    assert json.loads(json.dumps(data.facts)) == data.facts
    assert all(json.loads(json.dumps(e.metadata)) == e.metadata for e in episodes)


@pytest.mark.parametrize("libero", [False, True])
def test_a_file_written_again_holds_the_same_in_every_key_and_attribute(
    tmp_path: Path, libero: bool
):
    write_source(tmp_path / "lift.hdf5", libero=libero)
    data = robomimic.open(tmp_path / "lift.hdf5")
    assert write(tmp_path / "again.hdf5", export(data)) == []
    assert content(tmp_path / "again.hdf5") == content(tmp_path / "lift.hdf5")


def test_a_next_observation_that_is_not_the_next_one_is_kept(tmp_path: Path):
    write_source(tmp_path / "lift.hdf5")
    with File(tmp_path / "lift.hdf5", "a") as file:
        file["data/demo_1/next_obs/object"][2] = 0
    episode = robomimic.open(tmp_path / "lift.hdf5").episode(1)
    assert [key for key in episode.steps if key.startswith("next_obs")] == ["next_obs/object"]


def test_libero_frames_are_turned_upright_and_have_the_file_s_instruction(tmp_path: Path):
    write_source(tmp_path / "stove_demo.hdf5", libero=True)
    data = robomimic.open(tmp_path / "stove_demo.hdf5")
    with File(tmp_path / "stove_demo.hdf5") as file:
        saved = file["data/demo_1/obs/eye_in_hand_rgb"][()]
    episode = data.episode(1)
    np.testing.assert_array_equal(episode.steps["obs/eye_in_hand_rgb"], saved[:, ::-1])
    assert episode.texts == {"problem_info/language_instruction": ("turn on the stove",)}
    mapping = data.suggested_mapping()
    assert mapping.cameras == {
        "agentview": ("obs/agentview_rgb",),
        "robot0_eye_in_hand": ("obs/eye_in_hand_rgb",),
    }
    assert [part.keys[0] for part in mapping.proprio] == [
        "obs/ee_pos", "obs/ee_ori", "obs/gripper_states"
    ]  # fmt: skip
    assert mapping.instruction == ("problem_info/language_instruction",)


def test_a_folder_is_read_as_one_data_set_and_written_as_a_folder(tmp_path: Path):
    source = tmp_path / "libero_goal"
    source.mkdir()
    write_source(source / "b_demo.hdf5", {"demo_0": 2, "demo_1": 3}, libero=True)
    write_source(source / "a_demo.hdf5", {"demo_0": 4}, libero=True)
    data = robomimic.open(source)
    assert robomimic.recognizes(source)
    assert [len(data.episode(i).steps["actions"]) for i in range(len(data))] == [4, 2, 3]
    write(tmp_path / "again", export(data))
    for name in ("a_demo.hdf5", "b_demo.hdf5"):
        assert content(tmp_path / "again" / name) == content(source / name)


def test_the_environment_s_arguments_give_rate_action_and_convention(tmp_path: Path):
    write_source(tmp_path / "lift.hdf5")
    mapping = robomimic.open(tmp_path / "lift.hdf5").suggested_mapping()
    assert mapping.rate_hz == 20
    assert mapping.convention == "delta"
    assert mapping.cameras == {"agentview": ("obs/agentview_image",)}
    assert sum((part.labels for part in mapping.proprio), ()) == (
        "x", "y", "z", "qx", "qy", "qz", "qw", "finger_right", "finger_left"
    )  # fmt: skip
    assert mapping.action[0].units == ("0.05 m",) * 3 + ("0.5 rad",) * 3 + ("1",)
    assert mapping.action[0].low == (-1,) * 7
    assert mapping.success == ("rewards",)


def test_a_set_without_cameras_gives_the_objects_to_proprio(tmp_path: Path):
    with File(tmp_path / "low.hdf5", "w") as file:
        file["data/demo_0/actions"] = np.zeros((2, 7))
        file["data/demo_0/obs/object"] = np.zeros((2, 10))
        file["data/demo_0/obs/robot0_eef_pos"] = np.zeros((2, 3))
    mapping = robomimic.open(tmp_path / "low.hdf5").suggested_mapping()
    assert [part.keys for part in mapping.proprio] == [("obs/robot0_eef_pos",), ("obs/object",)]
    assert (mapping.cameras, mapping.rate_hz, mapping.convention) == ({}, 0, "")


def test_a_set_with_other_names_leaves_the_mapping_to_the_user(tmp_path: Path):
    with File(tmp_path / "other.hdf5", "w") as file:
        file["data/demo_0/actions"] = np.zeros((2, 3))
        file["data/demo_0/obs/flat"] = np.zeros((2, 3))
    with pytest.raises(ConfigError, match=r"a robot's pose, among: actions, obs/flat"):
        robomimic.open(tmp_path / "other.hdf5").suggested_mapping()


def recording(actions: np.ndarray, **changes: Any) -> ForeignEpisode:
    """What the export of a recording of our own looks like."""
    length = len(actions)
    episode = ForeignEpisode(
        "store, episode_000000",
        {
            "actions": actions.astype(np.float32),
            "obs/front_image": np.zeros((length, 4, 4, 3), np.uint8),
            "obs/proprio": np.zeros((length, 2), np.float32),
        },
        {"ep_meta/lang": ("lift the cube",)},
        {"seed": 7, "success": True},
    )
    return replace(episode, **changes)


def exported(*episodes: ForeignEpisode) -> Export:
    return Export(
        iter(episodes), len(episodes), 12.5, ["obs/front_image"], {}, {}, {"mapping": {"a": 1}}
    )


def test_a_recording_of_our_own_gets_what_robomimic_requires_and_comes_back(tmp_path: Path):
    lost = write(tmp_path / "own.hdf5", exported(recording(np.zeros((3, 2)))))
    assert len(lost) == 1
    assert "next_obs" in lost[0]
    with File(tmp_path / "own.hdf5") as file:
        arguments = json.loads(file["data"].attrs["env_args"])
        assert arguments["env_kwargs"]["control_freq"] == 12.5
        assert file["data"].attrs["total"] == 3
        assert file["data/demo_0"].attrs["num_samples"] == 3
        assert json.loads(file["data/demo_0"].attrs["ep_meta"]) == {"lang": "lift the cube"}
    data = robomimic.open(tmp_path / "own.hdf5")
    assert data.facts[OURS] == {"mapping": {"a": 1}}
    episode = data.episode(0)
    assert episode.texts == {"ep_meta/lang": ("lift the cube",)}
    assert (episode.metadata["seed"], episode.metadata["success"]) == (7, True)


@pytest.mark.parametrize("value", [1.5, -1.001, np.nan])
def test_an_action_outside_robomimic_s_range_is_refused_and_nothing_is_left(
    tmp_path: Path, value: float
):
    actions = np.zeros((3, 2))
    actions[1, 1] = value
    good = recording(np.zeros((3, 2)))
    with pytest.raises(StoreError, match=r"episode_000000: actions\[1\] is .* at step 1"):
        write(tmp_path / "own.hdf5", exported(good, recording(actions)))
    assert list(tmp_path.iterdir()) == []


def test_names_that_are_taken_are_not_written_over(tmp_path: Path):
    same = recording(np.zeros((1, 2)), metadata={"robomimic": {"demo": "demo_1", "masks": ["a"]}})
    write(tmp_path / "own.hdf5", exported(recording(np.zeros((1, 2))), same, same))
    with File(tmp_path / "own.hdf5") as file:
        assert sorted(file["data"]) == ["demo_0", "demo_1", "demo_2"]
        assert file["mask/a"][()].tolist() == [b"demo_1", b"demo_2"]


def test_what_is_there_already_is_left_as_it_is(tmp_path: Path):
    (tmp_path / "own.hdf5").write_text("mine")
    with pytest.raises(StoreError, match="already"):
        write(tmp_path / "own.hdf5", exported(recording(np.zeros((1, 2)))))
    assert (tmp_path / "own.hdf5").read_text() == "mine"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: f["data/demo_1"].pop("actions"), "demo_1 has no 'actions'"),
        (lambda f: f["data/demo_1/obs/object"].resize(4, 0), r"demo_1: obs/object has the shape"),
        (lambda f: f["data/demo_1"].attrs.update(ep_meta="lift"), r"demo_1: .*ep_meta"),
    ],
)
def test_a_damaged_demo_is_named_and_the_others_are_read(
    tmp_path: Path, damage: Callable[[Any], Any], message: str
):
    with File(tmp_path / "lift.hdf5", "w") as file:
        for name in ("demo_0", "demo_1"):
            demo = file.create_group(f"data/{name}")
            demo["actions"] = np.zeros((5, 2))
            demo.create_dataset("obs/object", data=np.zeros((5, 2)), maxshape=(None, 2))
        damage(file)
    data = robomimic.open(tmp_path / "lift.hdf5")
    assert len(data.episode(0).steps["actions"]) == 5
    with pytest.raises(StoreError, match=message):
        data.episode(1)


def test_a_file_cut_short_is_refused_by_name(tmp_path: Path):
    write_source(tmp_path / "lift.hdf5")
    content = (tmp_path / "lift.hdf5").read_bytes()
    (tmp_path / "lift.hdf5").write_bytes(content[: len(content) // 2])
    with pytest.raises(StoreError, match=r"lift\.hdf5: it is damaged"):
        robomimic.open(tmp_path / "lift.hdf5")
    with pytest.raises(StoreError, match=r"lift\.hdf5: it is damaged"):
        convert(tmp_path / "lift.hdf5", tmp_path / "lift.zarr")
