"""Minari's data sets, made and read by the package minari: what is read, written again, refused."""

import json
import os
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from tests.datasets.formats.minari_sets import (
    ACTION,
    DICT,
    LENGTHS,
    Space,
    assert_same,
    buffers,
    make,
    minari_package,
)

from loopdit.datasets.formats import minari
from loopdit.datasets.formats.foreign import OURS, Export, ForeignData, ForeignEpisode
from loopdit.datasets.formats.minari_writer import write
from loopdit.errors import ConfigError, StoreError


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where minari looks for data sets."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "sets"))
    (tmp_path / "sets").mkdir()
    return tmp_path / "sets"


def export(data: ForeignData, **changes: Any) -> Export:
    episodes = (data.episode(i) for i in range(len(data)))
    return Export(episodes, len(data), 10.0, ["observations/pixels"], {}, data.facts, **changes)


@pytest.mark.parametrize("kind", ["hdf5", "arrow", "parquet"])
@pytest.mark.parametrize("jpeg", [True, False])
def test_every_element_of_an_observation_is_a_key(root: Path, kind: str, jpeg: bool):
    if kind != "hdf5":
        pytest.importorskip("pyarrow")
    make(DICT, kind, jpeg_encoding=jpeg)
    theirs = minari_package.load_dataset("test/lift-v2")
    data = minari.open(root / "test" / "lift-v2")
    assert minari.recognizes(root / "test" / "lift-v2")
    assert len(data) == len(LENGTHS)
    for index, length in enumerate(LENGTHS):
        episode, their = data.episode(index), theirs[index]
        expected = {
            "observations/pixels": their.observations["pixels"][:length],
            "observations/pose": their.observations["pose"][:length],
            "observations/pair/_index_0": their.observations["pair"][0][:length],
            "observations/pair/_index_1": their.observations["pair"][1][:length],
            "actions": their.actions,
            "rewards": their.rewards,
            "terminations": their.terminations,
            "truncations": their.truncations,
            "infos/success": np.arange(length) > 1,
            "infos/force": np.eye(length, 4),
        } | ({"infos/deep/x": np.arange(length)} if kind == "hdf5" else {})
        assert set(episode.steps) == set(expected)
        for key, value in expected.items():
            np.testing.assert_array_equal(episode.steps[key], value, strict=True)
        assert episode.texts == {
            "observations/mission": tuple(their.observations["mission"][:length])
        }
        assert episode.metadata["seed"] == index + 5
        assert json.loads(json.dumps(episode.metadata)) == episode.metadata
    assert json.loads(json.dumps(data.facts)) == data.facts


@pytest.mark.parametrize("kind", ["hdf5", "parquet"])
@pytest.mark.parametrize("space", [DICT, spaces.Box(-1, 1, (4,), np.float64)], ids=["Dict", "Box"])
def test_minari_finds_in_what_is_written_again_all_it_found_before(
    root: Path, kind: str, space: Space
):
    make(space, kind)
    (root / "again").mkdir()
    write(root / "again" / "lift-v2", export(minari.open(root / "test" / "lift-v2")))
    before, after = (
        minari_package.load_dataset(f"{folder}/lift-v2") for folder in ("test", "again")
    )
    assert (after.total_episodes, after.total_steps) == (len(LENGTHS), sum(LENGTHS))
    assert after.observation_space == before.observation_space
    assert after.action_space == before.action_space
    assert after.storage.metadata["algorithm_name"] == "by hand"
    for one, other in zip(before, after, strict=True):
        assert one.id == other.id
        for name in ("observations", "actions", "rewards", "terminations", "truncations", "infos"):
            assert_same(getattr(one, name), getattr(other, name))
    said = [list(d.storage.get_episode_metadata(range(len(LENGTHS)))) for d in (before, after)]
    assert said[0] == said[1]
    assert said[1][1]["options"] == {"level": 1, "deep": {"wind": 0.5}}


def test_the_spaces_give_cameras_proprio_and_limits(root: Path):
    make(DICT)
    mapping = minari.open(root / "test/lift-v2/data").suggested_mapping()
    assert mapping.cameras == {"pixels": ("observations/pixels",)}
    parts = {part.keys[0]: (part.low, part.high) for part in mapping.proprio}
    assert parts["observations/pose"] == ((-2.0,) * 3, (2.0,) * 3)
    assert parts["observations/pair/_index_0"] == ((), ())
    assert mapping.action[0].high == (1.0, 1.0)
    assert mapping.instruction == ("observations/mission",)
    assert mapping.success == ("infos/success",)
    assert mapping.rate_hz == 0


def test_observations_without_a_vector_leave_the_mapping_to_the_user(root: Path):
    make(spaces.Box(0, 255, (32, 32, 3), np.uint8))
    with pytest.raises(ConfigError, match="no vector among its observations"):
        minari.open(root / "test/lift-v2").suggested_mapping()


@pytest.mark.parametrize(
    ("action", "values", "kind"),
    [
        (spaces.Discrete(3), np.zeros, "Discrete"),
        (spaces.MultiBinary(2), lambda n: np.zeros((n, 2), np.int8), "MultiBinary"),
        (spaces.Dict({"a": ACTION}), lambda n: {"a": np.zeros((n, 2), np.float32)}, "Box"),
    ],
)
def test_actions_that_are_no_vector_are_refused(
    root: Path, action: Space, values: Callable[[int], Any], kind: str
):
    box = spaces.Box(-1, 1, (4,), np.float64)
    episodes = [
        replace(episode, actions=values(length))
        for episode, length in zip(buffers(box), LENGTHS, strict=True)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        minari_package.create_dataset_from_buffers(
            "test/keys-v0", episodes, observation_space=box, action_space=action
        )
    with pytest.raises(StoreError, match=rf"keys-v0 has actions of the kind {kind}.*one vector"):
        minari.open(root / "test/keys-v0")


def recording(length: int, **steps: np.ndarray) -> ForeignEpisode:
    plain = {
        "observations/front": np.full((length, 32, 32, 3), length, np.uint8),
        "observations/proprio": np.arange(2 * length, dtype=np.float32).reshape(length, 2),
        "actions": np.zeros((length, 3), np.float32),
    }
    return ForeignEpisode(
        f"episode {length}",
        {**plain, **steps},
        {"infos/instruction": (f"lift {length}",)},
        {"seed": length, "success": length == 2},
    )


def exported(*episodes: ForeignEpisode, **changes: Any) -> Export:
    return Export(iter(episodes), len(episodes), 12.5, ["observations/front"], {}, {}, **changes)


def test_a_recording_of_our_own_opens_in_minari_and_comes_back(root: Path):
    force = np.ones((2, 4))
    episodes = [recording(2, **{"a/force": force}), recording(3, **{"a/force": np.zeros((3, 4))})]
    lost = write(root / "own-v0", exported(*episodes, ours={"mapping": {"a": 1}}))
    assert [phrase.split(",")[0].split(" (")[0] for phrase in lost] == [
        "names",
        "rewards",
        "the observation after the last action",
        "the rate of 12.5 Hz",
    ]
    theirs = minari_package.load_dataset("own-v0")
    assert theirs.observation_space["front"] == spaces.Box(0, 255, (32, 32, 3), np.uint8)
    first, second = theirs[0], theirs[1]
    assert first.observations["proprio"].tolist() == [[0, 1], [2, 3], [2, 3]]
    assert (first.terminations[-1], first.truncations[-1]) == (True, False)
    assert (second.terminations[-1], second.truncations[-1]) == (False, True)
    assert first.infos["a"]["force"].shape == (3, 4)
    assert [e["seed"] for e in theirs.storage.get_episode_metadata([0, 1])] == [2, 3]
    assert "own-v0" in minari_package.list_local_datasets()
    data = minari.open(root / "own-v0")
    assert data.facts[OURS] == {"mapping": {"a": 1}}
    for index, before in enumerate(episodes):
        after = data.episode(index)
        for key, value in before.steps.items():
            np.testing.assert_array_equal(after.steps[key], value, strict=True)
        assert after.texts == before.texts
        assert before.metadata.items() <= after.metadata.items()


def test_a_folder_without_a_version_is_told_its_id(root: Path):
    lost = write(root / "my set", exported(recording(2)))
    assert any("'my-set-v0'" in phrase for phrase in lost)
    assert minari_package.MinariDataset(root / "my set" / "data").id == "my-set-v0"


def test_episodes_of_other_shapes_are_refused_and_nothing_is_left(root: Path):
    wide = recording(3, **{"observations/front": np.zeros((3, 32, 64, 3), np.uint8)})
    with pytest.raises(StoreError, match=r"episode 3: 'observations/front' has the shape"):
        write(root / "own-v0", exported(recording(2), wide))
    assert list(root.iterdir()) == []


def test_what_is_there_already_is_left_as_it_is(root: Path):
    (root / "own-v0").mkdir()
    (root / "own-v0" / "mine").write_text("mine")
    with pytest.raises(StoreError, match="already"):
        write(root / "own-v0", exported(recording(2)))
    assert (root / "own-v0" / "mine").read_text() == "mine"


def test_damage_is_named(root: Path):
    make(DICT, jpeg_encoding=False)
    path = root / "test" / "lift-v2"
    main = path / "data" / "main_data.hdf5"
    content = main.read_bytes()
    main.write_bytes(content[:5000])
    with pytest.raises(StoreError, match=r"main_data\.hdf5: it is damaged"):
        minari.open(path)
    os.remove(main)
    with pytest.raises(StoreError, match="data_format 'hdf5'"):
        minari.open(path)
    shutil.rmtree(path / "data")
    with pytest.raises(StoreError, match="no Minari data set"):
        minari.open(path)
    assert not minari.recognizes(path)
