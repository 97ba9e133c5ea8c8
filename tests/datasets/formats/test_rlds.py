"""RLDS: real Bridge episodes, round trips, the files that are written, and damaged ones."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.datasets.formats.rlds_episodes import (
    IMAGES,
    foreign_episode,
    same_episode,
    slow_records,
    write_data_set,
)

from loopdit.datasets.formats import rlds
from loopdit.datasets.formats.foreign import OURS, Export
from loopdit.datasets.formats.rlds_features import features_json, parse_features
from loopdit.errors import ConfigError, StoreError

EXCERPT = Path(__file__).parent / "bridge_excerpt"
EXCERPT_FILE = EXCERPT / "bridge_dataset-train.tfrecord-00000-of-00001"


@pytest.fixture
def excerpt(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EXCERPT, tmp_path / "bridge"))


def only_file(folder: Path) -> Path:
    (file,) = folder.rglob("*.tfrecord-*")
    return file


def test_real_episodes_are_what_their_bytes_say():
    data = rlds.open(EXCERPT)
    assert len(data) == 2
    for index, record in enumerate(slow_records(EXCERPT_FILE)):
        episode = data.episode(index)
        assert episode.steps["observation/image_0"].shape == (10, 64, 64, 3)
        np.testing.assert_array_equal(
            episode.steps["action"],
            np.reshape(np.array(record["steps/action"], np.float32), (10, 7)),
        )
        np.testing.assert_array_equal(
            episode.steps["language_embedding"].ravel(),
            np.array(record["steps/language_embedding"], np.float32),
        )
        assert episode.steps["is_last"].tolist() == [bool(v) for v in record["steps/is_last"]]
        assert episode.texts["language_instruction"] == ("put carrot on plate",)
        path = record["episode_metadata/file_path"][0].decode()
        assert episode.metadata["episode_metadata/file_path"] == path
        assert episode.metadata["episode_metadata/has_image_0"] is False
    assert data.notes == ["dataset_info.json tells of the split 'val', which is not there"]


def test_every_kind_of_path_to_the_files_opens_them(tmp_path: Path):
    written = write_data_set(tmp_path / "mine", foreign_episode(0), foreign_episode(1))
    for path in (written, written / "1.0.0", only_file(written)):
        assert rlds.recognizes(path)
        same_episode(rlds.open(path).episode(1), rlds.open(written).episode(1))
    assert not rlds.recognizes(tmp_path)
    assert not rlds.recognizes(Path(__file__))


def test_what_is_written_is_read_again_key_by_key(tmp_path: Path):
    # Doubles, whole numbers of every size, flags, halves, more axes, zeros with signs.
    foreign = foreign_episode(
        3,
        small=np.arange(4, dtype=np.int8) - 2,
        large=np.array([2**63, 1, 2, 3], np.uint64),
        flag=np.array([True, False, True, True]),
        half=np.full((4, 2), 0.1, np.float16),
        deep=np.random.default_rng(0).normal(size=(4, 2, 1, 3)),
        zeros=np.array([0.0, -0.0, np.inf, np.nan], np.float32),
    )
    foreign = replace(foreign, texts={**foreign.texts, "part": ("a", "b", "b", "ünï")})
    data = rlds.open(write_data_set(tmp_path / "mine", foreign))
    read = data.episode(0)
    added = {"is_first", "is_last", "is_terminal", "discount"}
    assert added < set(read.steps)
    assert read.steps["is_first"].tolist() == [True, False, False, False]
    assert read.steps["is_last"].tolist() == [False, False, False, True]
    kept = {key: value for key, value in read.steps.items() if key not in added}
    same_episode(replace(read, steps=kept), foreign)


@settings(max_examples=25)
@given(
    seeds=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=3),
    length=st.integers(1, 6),
    texts=st.lists(st.text(max_size=9), min_size=6, max_size=6),
)
def test_a_round_trip_gives_every_key_of_every_episode(
    tmp_path_factory: pytest.TempPathFactory, seeds: list[int], length: int, texts: list[str]
):
    folder = tmp_path_factory.mktemp("round")
    episodes = [
        replace(
            foreign_episode(seed, length),
            texts={"language_instruction": tuple(texts[:length])},
        )
        for seed in seeds
    ]
    first = rlds.open(write_data_set(folder / "one", *episodes))
    again = Export(
        (first.episode(i) for i in range(len(first))), len(first), 5.0, IMAGES, {}, first.facts
    )
    assert rlds.write(folder / "two", again) == []
    second = rlds.open(folder / "two")
    assert len(second) == len(episodes)
    for index in range(len(first)):
        same_episode(second.episode(index), first.episode(index))


def test_real_episodes_come_back_with_the_same_pixels_and_the_loss_of_jpeg_is_told(tmp_path: Path):
    data = rlds.open(EXCERPT)
    images = [f"observation/image_{i}" for i in range(4)]
    export = Export((data.episode(i) for i in range(2)), 2, 5.0, images, {}, data.facts)
    lost = rlds.write(tmp_path / "again", export)
    assert sorted(lost) == [
        f"the JPEG bytes of '{key}': its frames are PNG now, with the same pixels" for key in images
    ]
    again = rlds.open(tmp_path / "again")
    for index in range(2):
        same_episode(again.episode(index), data.episode(index))


def test_the_files_are_laid_out_as_tfds_does_it(tmp_path: Path):
    episodes = [foreign_episode(i) for i in range(3)]
    episodes[1] = replace(episodes[1], metadata={**episodes[1].metadata, "split": "val"})
    written = write_data_set(tmp_path / "My data", *episodes)
    names = sorted(f.name for f in (written / "1.0.0").iterdir())
    assert names == [
        "dataset_info.json",
        "features.json",
        "my_data-train.tfrecord-00000-of-00001",
        "my_data-val.tfrecord-00000-of-00001",
    ]
    info = json.loads((written / "1.0.0" / "dataset_info.json").read_text())
    assert [(s["name"], s["shardLengths"]) for s in info["splits"]] == [
        ("train", ["2"]),
        ("val", ["1"]),
    ]
    data = rlds.open(written)
    said = [data.episode(i).metadata for i in range(3)]
    assert [m["episode_metadata/number"] for m in said] == [0, 2, 1]
    assert [m.get("split") for m in said] == [None, None, "val"]


def test_large_data_sets_are_cut_into_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("loopdit.datasets.formats.rlds_writer.SHARD_BYTES", 5000)
    episodes = [foreign_episode(i, length=6) for i in range(5)]
    written = write_data_set(tmp_path / "mine", *episodes)
    shards = sorted(f.name for f in (written / "1.0.0").glob("*.tfrecord*"))
    assert len(shards) > 1
    assert shards[-1].endswith(f"-{len(shards) - 1:05d}-of-{len(shards):05d}")
    data = rlds.open(written)
    assert [data.episode(i).metadata["episode_metadata/number"] for i in range(5)] == [*range(5)]

    (written / "1.0.0" / shards[0]).unlink()
    with pytest.raises(StoreError, match=rf"lacks {shards[0]} \(1 of {len(shards)} shards are"):
        rlds.open(written)


def test_features_of_bridge_are_read_and_written_again():
    described = json.loads((EXCERPT / "features.json").read_text())
    features = parse_features(described)
    assert {f.path for f in features if f.kind == "image"} == {
        f"steps/observation/image_{i}" for i in range(4)
    }
    assert sorted(parse_features(features_json(features)), key=str) == sorted(features, key=str)


@pytest.mark.parametrize(
    ("node", "complaint"),
    [
        ({"featuresDict": {"features": {}}}, r"features.json has no 'steps'"),
        ({"pythonClassName": "tfds.Audio"}, r"describes '' as tfds.Audio, which this loopdit"),
        ([], r"describes 'the episode' by \[\]"),
    ],
)
def test_features_that_are_not_understood_are_refused(excerpt: Path, node: object, complaint: str):
    (excerpt / "features.json").write_text(json.dumps(node))
    with pytest.raises(StoreError, match=complaint):
        rlds.open(excerpt)


def test_features_are_guessed_where_there_is_no_description(excerpt: Path):
    whole = rlds.open(EXCERPT).episode(0)
    (excerpt / "features.json").unlink()
    data = rlds.open(excerpt)
    guessed = data.episode(0)
    assert any("shapes and types were guessed" in note for note in data.notes)
    for key in ("observation/image_1", "action", "observation/state", "is_first", "reward"):
        np.testing.assert_array_equal(guessed.steps[key], whole.steps[key])
    assert guessed.texts == whole.texts


def test_bridge_suggests_its_cameras_state_and_action_and_leaves_the_rate_open():
    mapping = rlds.open(EXCERPT).suggested_mapping()
    assert set(mapping.cameras) == {f"image_{i}" for i in range(4)}
    assert mapping.proprio[0].keys == ("observation/state",)
    assert mapping.action[0].keys == ("action",)
    assert mapping.instruction == ("language_instruction",)
    assert mapping.rate_hz == 0


def test_an_action_of_unknown_parts_has_to_be_mapped_by_its_user(tmp_path: Path):
    foreign = foreign_episode(0)
    steps = {k: v for k, v in foreign.steps.items() if k != "action"}
    odd = replace(foreign, steps={**steps, "action/torque": np.zeros((4, 2), np.float32)})
    data = rlds.open(write_data_set(tmp_path / "odd", odd))
    with pytest.raises(ConfigError, match=r"action of unknown parts \(action/torque\)"):
        data.suggested_mapping()


def test_a_damaged_record_is_named_and_the_next_one_can_be_read(excerpt: Path):
    file = only_file(excerpt)
    bytes_ = bytearray(file.read_bytes())
    bytes_[1000] ^= 1
    file.write_bytes(bytes_)
    data = rlds.open(excerpt)
    with pytest.raises(StoreError, match=r"00001, episode 0: the checksum of the record is wrong"):
        data.episode(0)
    same_episode(data.episode(1), rlds.open(EXCERPT).episode(1))


def test_a_file_cut_short_and_one_with_too_few_records_are_refused(excerpt: Path):
    file = only_file(excerpt)
    whole = file.read_bytes()
    file.write_bytes(whole[:-9])
    with pytest.raises(StoreError, match=r"record 1 cannot be read, the file ends in it"):
        rlds.open(excerpt)
    file.write_bytes(whole[: int.from_bytes(whole[:8], "little") + 16])
    with pytest.raises(StoreError, match=r"has 1 records, dataset_info.json says 2"):
        rlds.open(excerpt)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"steps/observation/wrist": [b"\x89PNG broken"] * 4}, r"wrist' has an image that cannot"),
        ({"steps/observation/wrist": []}, r"wrist' has 0 images for 4 steps"),
        ({"steps/action": np.zeros(15, np.float32)}, r"'action' has 15 values for 4 steps"),
        ({"steps/action": [b"x"] * 4}, r"'action' has bytes where its description says numbers"),
    ],
)
def test_a_feature_that_does_not_fit_names_episode_and_key(
    tmp_path: Path, change: dict[str, list[bytes] | np.ndarray], complaint: str
):
    from loopdit.datasets.formats.tf_example import parse_example, serialize_example
    from loopdit.datasets.formats.tfrecord import read_record, record_places, write_record

    written = write_data_set(tmp_path / "mine", foreign_episode(0))
    file = only_file(written)
    with file.open("rb") as opened:
        record = read_record(opened, record_places(file)[0])
    assert record is not None
    with file.open("wb") as opened:
        write_record(opened, serialize_example({**parse_example(record), **change}))
    with pytest.raises(StoreError, match=rf"-00001, episode 0: .*{complaint}"):
        rlds.open(written).episode(0)


def test_episodes_that_are_not_alike_cannot_be_written_and_nothing_is_left(tmp_path: Path):
    odd = foreign_episode(1, action=np.zeros((4, 9), np.float32))
    with pytest.raises(StoreError, match=r"episode 1: 'action' has shape \(9,\) a step"):
        write_data_set(tmp_path / "mine", foreign_episode(0), odd)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_not_written_over(tmp_path: Path):
    write_data_set(tmp_path / "mine", foreign_episode(0))
    with pytest.raises(StoreError, match=r"something is there already"):
        write_data_set(tmp_path / "mine", foreign_episode(0))


def test_what_the_writer_was_told_to_keep_is_given_back(tmp_path: Path):
    export = Export(iter([foreign_episode(0)]), 1, 10.0, IMAGES, {}, {}, {"mapping": {"a": 1}})
    rlds.write(tmp_path / "mine", export)
    assert rlds.open(tmp_path / "mine").facts[OURS] == {"mapping": {"a": 1}}
