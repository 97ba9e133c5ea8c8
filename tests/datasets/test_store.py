import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from loopdit.datasets.spec import PolicySpec, TensorSpec
from loopdit.datasets.store import Episode, EpisodeStore, EpisodeWriter
from loopdit.errors import SpecMismatch, StoreError

MakeEpisode = Callable[[int, int], Episode]


def test_episodes_are_listed_in_the_order_of_their_appending(
    store: Path, spec: PolicySpec, episode: MakeEpisode
):
    opened = EpisodeStore.open(store)
    assert opened.spec == spec
    assert opened.provenance == {"made by": "a test"}
    assert [(e.id, e.length, e.seed, e.success) for e in opened.episodes] == [
        ("episode_000000", 5, 0, True),
        ("episode_000001", 1, 1, False),
        ("episode_000002", 8, 2, True),
    ]
    np.testing.assert_array_equal(opened.arrays(2)["action"], episode(2, 8).actions)


def test_an_open_store_does_not_change_while_others_append(
    store: Path, spec: PolicySpec, episode: MakeEpisode
):
    opened = EpisodeStore.open(store)
    EpisodeWriter.resume(store, spec).append(episode(9, 2))
    assert len(opened.episodes) == 3
    assert len(EpisodeStore.open(store).episodes) == 4


def test_the_maps_of_an_episode_cannot_be_written_to(store: Path):
    with pytest.raises(ValueError, match="read-only"):
        EpisodeStore.open(store).arrays(0)["proprio"][0] = 0


def test_a_writer_works_in_another_process_after_pickling(
    store: Path, spec: PolicySpec, episode: MakeEpisode
):
    sent = pickle.loads(pickle.dumps(EpisodeWriter.resume(store, spec)))
    assert sent.append(episode(3, 2)).id == "episode_000003"


def test_the_digest_depends_on_the_data_and_not_on_the_order_of_appending(
    tmp_path: Path, spec: PolicySpec, episode: MakeEpisode
):
    def digest(name: str, *episodes: Episode) -> str:
        writer = EpisodeWriter.create(tmp_path / name, spec, {"name": name})
        for each in episodes:
            writer.append(each)
        return EpisodeStore.open(tmp_path / name).digest()

    one, two = episode(1, 3), episode(2, 4)
    touched = one.actions.copy()
    touched[0, 0] += 1e-3
    base = digest("base", one, two)
    assert digest("swapped", two, one) == base
    others = [
        digest("fewer", one),
        digest("twice", one, two, two),
        digest("touched", replace(one, actions=touched), two),
        digest("failed", replace(one, success=not one.success), two),
        digest("reworded", replace(one, instruction="stack"), two),
    ]
    assert len({base, *others}) == 6


def with_observation(episode: Episode, name: str, value: np.ndarray) -> Episode:
    return replace(episode, observations={**episode.observations, name: value})


def broken_episodes(good: Episode) -> dict[str, tuple[Episode, str]]:
    lacking = {k: v for k, v in good.observations.items() if k != "proprio"}
    nan, infinite = good.actions.copy(), good.observations["proprio"].copy()
    nan[3, 1], infinite[2, 0] = np.nan, np.inf
    return {
        "missing": (replace(good, observations=lacking), r"seed 0 lacks 'proprio'. Record exactly"),
        "unknown": (
            with_observation(good, "images.top", np.zeros((5, 4, 4, 3), np.uint8)),
            r"has an unknown 'images.top'",
        ),
        "shape": (
            with_observation(good, "proprio", np.zeros((5, 3), np.float32)),
            r"proprio .* has shape \(5, 3\) and dtype float32; .* \(5, 2\) float32",
        ),
        "dtype": (
            with_observation(good, "images.front", np.zeros((5, 4, 4, 3), np.float32)),
            r"images.front .* dtype float32; .* \(5, 4, 4, 3\) uint8",
        ),
        "length": (
            with_observation(good, "images.wrist", np.zeros((6, 4, 4, 3), np.uint8)),
            r"images.wrist .* has shape \(6, .* for its 5 actions",
        ),
        "float64 actions": (
            replace(good, actions=good.actions.astype(float)),
            r"^action .*float64",
        ),
        "flat actions": (replace(good, actions=good.actions[:, 0]), r"^action .* shape \(5,\)"),
        "nan action": (replace(good, actions=nan), r"action .* not finite at step 3, index \[1\]"),
        "inf proprio": (
            with_observation(good, "proprio", infinite),
            r"proprio .* finite at step 2",
        ),
        "no steps": (
            Episode(
                {k: v[:0] for k, v in good.observations.items()}, good.actions[:0], "", True, 0
            ),
            r"has no steps",
        ),
    }


@pytest.mark.parametrize(
    "fault",
    broken_episodes(
        Episode(
            {"proprio": np.zeros((5, 2), np.float32)}, np.zeros((5, 3), np.float32), "", True, 0
        )
    ),
)
def test_an_episode_that_does_not_fit_is_refused_before_anything_is_written(
    store: Path, spec: PolicySpec, episode: MakeEpisode, fault: str
):
    def files() -> dict[Path, int]:
        return {file: file.stat().st_mtime_ns for file in store.rglob("*")}

    writer, before = EpisodeWriter.resume(store, spec), files()
    broken, refusal = broken_episodes(episode(0, 5))[fault]
    with pytest.raises((SpecMismatch, StoreError), match=refusal):
        writer.append(broken)
    assert files() == before


def test_creating_where_something_exists_is_refused_and_leaves_it_alone(
    store: Path, tmp_path: Path, spec: PolicySpec
):
    file = tmp_path / "file"
    file.write_text("mine")
    for taken in (store, file):
        with pytest.raises(StoreError, match=r"already exists. Resume it, remove it, or choose"):
            EpisodeWriter.create(taken, spec, {})
    assert file.read_text() == "mine"
    assert len(EpisodeStore.open(store).episodes) == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "store"]


@pytest.mark.parametrize("inside", ["new", "episodes/new", "a/b/new"])
def test_no_store_is_created_inside_another(store: Path, spec: PolicySpec, inside: str):
    before = sorted(store.rglob("*"))
    with pytest.raises(StoreError, match=rf"would lie in the episode store {store}"):
        EpisodeWriter.create(store / inside, spec, {})
    assert sorted(store.rglob("*")) == before


def test_lines_of_any_length_are_gone_on_from(
    tmp_path: Path, spec: PolicySpec, episode: MakeEpisode
):
    writer = EpisodeWriter.create(tmp_path / "new", spec, {})
    instructions = ["lift it", "x" * 4096, "", "y" * 20_000, "z" * 3900]
    for seed, instruction in enumerate(instructions):
        writer.append(replace(episode(seed, 1), instruction=instruction))
        with (tmp_path / "new/episodes.jsonl").open("a") as index:
            index.write("a torn line" * (seed * 300))
    records = EpisodeStore.open(tmp_path / "new").episodes
    assert [record.instruction for record in records] == instructions
    assert [record.id for record in records] == [f"episode_{i:06d}" for i in range(5)]


def test_a_store_is_created_in_an_empty_or_missing_folder_at_any_depth(
    tmp_path: Path, spec: PolicySpec
):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "a/b/c"):
        EpisodeWriter.create(path, spec, {"k": [1, "two"]})
        assert EpisodeStore.open(str(path)).provenance == {"k": [1, "two"]}
        assert EpisodeStore.open(path).episodes == []


@pytest.mark.parametrize("name", ["action", "images/front", "..", "", "zarr.json"])
def test_an_observation_whose_name_cannot_be_a_folder_is_refused(tmp_path: Path, name: str):
    spec = PolicySpec(
        (TensorSpec(name, (1,), "float32"),), TensorSpec("action", (1,), "float32"), "", 0.1
    )
    with pytest.raises(StoreError, match=r"cannot be stored under that name"):
        EpisodeWriter.create(tmp_path / "store", spec, {})
    assert not (tmp_path / "store").exists()


def test_opening_a_missing_path_says_so(tmp_path: Path):
    with pytest.raises(StoreError, match=r"no episode store at .*/nowhere. Check the path"):
        EpisodeStore.open(tmp_path / "nowhere")


def test_opening_what_is_no_store_says_so(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("text")
    zarr.create_group(tmp_path / "someone's", attributes={"format": "other"})
    for name in ("folder", "file", "someone's"):
        with pytest.raises(StoreError, match=f"{name} is not an episode store"):
            EpisodeStore.open(tmp_path / name)


def test_opening_another_format_version_names_both_versions(store: Path):
    metadata: dict[str, Any] = json.loads((store / "zarr.json").read_text())
    metadata["attributes"]["format_version"] = 3
    (store / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(StoreError, match=r"format version 3; this loopdit reads versions 1 and"):
        EpisodeStore.open(store)


def test_resuming_with_another_spec_names_the_field_and_both_values(store: Path, spec: PolicySpec):
    with pytest.raises(SpecMismatch, match=r"control_period_s is 0.1, there 0.5. Record into"):
        EpisodeWriter.resume(store, replace(spec, control_period_s=0.5))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('{"id"', "{rubbish", "it is no JSON"),
        ('"seed": 1, ', "", "it does not have exactly the fields id, length"),
        ('"length": 1', '"length": "1"', "its length is '1'"),
        ('"length": 1', '"length": true', "its length is True"),
        ('"length": 1', '"length": -5', "its length is -5"),
        ('"seed": 1', '"seed": 1.5', "its seed is 1.5"),
        ('"success": false', '"success": "no"', "its success is 'no'"),
        ('"instruction": "lift', '"instruction": null, "x": "lift', "it does not have exactly"),
        ('"episode_000001"', '"../../elsewhere"', r"its id is '\.\./\.\./elsewhere'"),
    ],
)
def test_a_line_of_the_list_that_cannot_be_is_refused_with_its_number_and_why(
    store: Path, spec: PolicySpec, old: str, new: str, said: str
):
    index = store / "episodes.jsonl"
    lines = index.read_text().splitlines(keepends=True)
    assert old in lines[1]
    index.write_text(lines[0] + lines[1].replace(old, new) + lines[2])
    with pytest.raises(StoreError, match=rf"episodes.jsonl, line 2 is damaged, {said}.*repair"):
        EpisodeStore.open(store)
    with pytest.raises(StoreError, match="line 2 is damaged"):
        EpisodeWriter.resume(store, spec)


def test_a_short_or_missing_file_of_an_episode_is_named(store: Path):
    folder = store / "episodes/episode_000002"
    (folder / "proprio/c.0.0").write_bytes(b"short")
    (store / "episodes/episode_000000/action/c.0.0").unlink()
    opened = EpisodeStore.open(store)
    with pytest.raises(StoreError, match=r"episode_000002/proprio/c.0.0 has 5 bytes, .* 64"):
        opened.arrays(2)
    with pytest.raises(StoreError, match=r"episode_000000/action/c.0.0 is missing, .* 60 bytes"):
        opened.arrays(0)


def test_an_episode_taken_out_by_hand_does_not_cost_another_one(
    store: Path, spec: PolicySpec, episode: MakeEpisode
):
    index = store / "episodes.jsonl"
    lines = index.read_text().splitlines(keepends=True)
    index.write_text(lines[0] + lines[2])
    with pytest.raises(StoreError, match=r"has no line for 1 .* as episode_000001.* repair"):
        EpisodeWriter.resume(store, spec)
    assert (store / "episodes/episode_000001/action/c.0.0").exists()
    shutil.rmtree(store / "episodes/episode_000001")
    writer = EpisodeWriter.resume(store, spec)
    assert writer.append(episode(7, 2)).id == "episode_000003"
    opened = EpisodeStore.open(store)
    assert [e.seed for e in opened.episodes] == [0, 2, 7]
    np.testing.assert_array_equal(opened.arrays(1)["action"], episode(2, 8).actions)
