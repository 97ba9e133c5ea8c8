"""What is wrong with an episode is found and named; taking it off the list keeps the rest."""

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from loopdit.datasets.episode_check import check_episode
from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.store import Episode, EpisodeStore, EpisodeWriter

MakeEpisode = Callable[[int, int], Episode]
FRAMES = ("raw", "zstd", "jpeg")


@pytest.fixture(params=FRAMES)
def full_store(
    tmp_path: Path, spec: PolicySpec, episode: MakeEpisode, request: pytest.FixtureRequest
) -> Path:
    """Three episodes with extras and metadata, in each way to keep frames."""
    writer = EpisodeWriter.create(tmp_path / "full", spec, {}, request.param)
    for seed in range(3):
        extras = {"obs/joint": np.full((4, 2), seed, np.float16)}
        writer.append(replace(episode(seed, 4), extras=extras, metadata={"operator": "a"}))
    return tmp_path / "full"


def data_files(episode: Path) -> list[Path]:
    return [file for file in sorted(episode.rglob("c.*")) if file.is_file()]


def key_of(file: Path, episode: Path) -> str:
    folder = file.relative_to(episode).parts[0]
    return "extras/obs/joint" if folder == "extras" else folder


def check_all(store: Path) -> list[list[tuple[str, str]]]:
    opened = EpisodeStore.open(store)
    return [check_episode(opened, index) for index in range(len(opened.episodes))]


def test_nothing_is_wrong_with_what_was_just_written(full_store: Path):
    assert check_all(full_store) == [[], [], []]


@pytest.mark.parametrize("damage", ["missing", "cut short", "one bit", "too long", "empty"])
def test_every_damaged_chunk_is_found_and_its_key_and_file_are_named(full_store: Path, damage: str):
    episode = full_store / "episodes/episode_000001"
    for file in data_files(episode):
        whole = file.read_bytes()
        changed = bytearray(whole)
        changed[len(whole) // 2] ^= 1
        if damage == "missing":
            file.unlink()
        else:
            file.write_bytes(
                {
                    "cut short": whole[:-1],
                    "one bit": bytes(changed),
                    "too long": whole + b"\0",
                    "empty": b"",
                }[damage]
            )
        found = check_episode(EpisodeStore.open(full_store), 1)
        assert {key for key, _ in found} == {key_of(file, episode)}
        assert key_of(file, episode).rpartition("/")[2] in found[0][1]
        file.write_bytes(whole)
    assert check_all(full_store) == [[], [], []]


def test_every_altered_metadata_file_is_found(full_store: Path):
    episode = full_store / "episodes/episode_000001"
    files = [file for file in sorted(episode.rglob("zarr.json")) if file.parent.name != "extras"]
    for file in files:
        whole = file.read_bytes()
        data = json.loads(whole)
        data["attributes" if data["node_type"] == "group" else "shape"] = []
        for content in (b"", whole[:-2], b"[]", json.dumps(data).encode()):
            file.write_bytes(content)
            found = check_episode(EpisodeStore.open(full_store), 1)
            if content == json.dumps(data).encode() and file.parent.name.startswith("images."):
                continue  # the attributes of a group of JPEGs are for people
            assert found, (file, content)
        file.write_bytes(whole)


@pytest.mark.parametrize(
    ("field", "value"),
    [("instruction", "stack"), ("success", None), ("seed", 9), ("metadata", {}), ("extras", {})],
)
def test_an_altered_attribute_is_found(full_store: Path, field: str, value: object):
    file = full_store / "episodes/episode_000001/zarr.json"
    data = json.loads(file.read_text())
    data["attributes"][field] = value
    file.write_text(json.dumps(data))
    good, found, also_good = check_all(full_store)
    assert good == also_good == []
    assert [key for key, _ in found] == [""]


def test_an_altered_line_of_the_list_is_found(full_store: Path):
    index = full_store / "episodes.jsonl"
    index.write_text(index.read_text().replace("take 1", "take 7"))
    _, found, _ = check_all(full_store)
    assert len(found) == 1
    assert (
        "says instruction 'lift the cube, take 1', the list 'lift the cube, take 7'" in found[0][1]
    )


def test_frames_swapped_between_two_cameras_are_found(full_store: Path):
    episode = full_store / "episodes/episode_000001"
    shutil.move(episode / "images.front", episode / "aside")
    shutil.move(episode / "images.wrist", episode / "images.front")
    shutil.move(episode / "aside", episode / "images.wrist")
    assert {key for key, _ in check_all(full_store)[1]} == {"images.front", "images.wrist"}


def test_a_store_of_version_1_has_no_checksums_and_its_digest_tells(tmp_path: Path):
    golden = Path(__file__).parents[1] / "goldens/episode_store_v1"
    shutil.copytree(golden, tmp_path / "store")
    file = tmp_path / "store/episodes/episode_000000/action/c.0.0"
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    assert check_all(tmp_path / "store") == [
        [("", "its content is not what was recorded: the digest differs")]
    ]


def test_dropped_episodes_leave_the_list_and_keep_their_files_aside(
    full_store: Path, spec: PolicySpec, episode: MakeEpisode
):
    before = EpisodeStore.open(full_store).episodes
    writer = EpisodeWriter.resume(full_store, spec)
    shutil.rmtree(full_store / "episodes/episode_000002")  # one is gone altogether
    writer.drop(["episode_000000", "episode_000002", "episode_000077"])
    assert EpisodeStore.open(full_store).episodes == before[1:2]
    assert check_all(full_store) == [[]]
    assert (full_store / "quarantine/episode_000000/action/c.0.0").exists()
    assert not (full_store / "episodes/episode_000000").exists()
    # The number of one that was put away is not given again.
    assert writer.append(episode(5, 2)).id == "episode_000003"
    writer.drop([])
    assert len(EpisodeStore.open(full_store).episodes) == 2


def test_a_dropped_episode_can_be_put_back_by_hand(
    full_store: Path, spec: PolicySpec, episode: MakeEpisode
):
    before = EpisodeStore.open(full_store).episodes
    writer = EpisodeWriter.resume(full_store, spec)
    writer.drop(["episode_000002"])
    (full_store / "index").mkdir()
    shutil.move(full_store / "quarantine/episode_000002", full_store / "episodes/episode_000002")
    shutil.move(full_store / "quarantine/episode_000002.json", full_store / "index")
    writer = EpisodeWriter.resume(full_store, spec)
    assert EpisodeStore.open(full_store).episodes == before
    assert writer.append(episode(5, 2)).id == "episode_000003"
    assert check_all(full_store) == [[], [], [], []]


def test_writers_that_wait_while_episodes_are_dropped_go_on_with_the_new_list(
    full_store: Path, spec: PolicySpec, episode: MakeEpisode
):
    writer = EpisodeWriter.resume(full_store, spec)
    with ThreadPoolExecutor(8) as pool:
        appended = [pool.submit(writer.append, episode(10 + n, 2)) for n in range(24)]
        for id in ("episode_000000", "episode_000001", "episode_000002"):
            pool.submit(writer.drop, [id]).result()
        ids = {each.result().id for each in appended}
    records = EpisodeStore.open(full_store).episodes
    assert {record.id for record in records} == ids
    assert len(records) == 24
    assert check_all(full_store) == [[]] * 24
