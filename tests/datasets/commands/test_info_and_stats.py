"""What is in a store, against the store itself."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.datasets.commands.calls import Call

from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.store import Episode, EpisodeStore, EpisodeWriter


def test_info_as_json_says_what_the_store_holds(call: Call, store: Path, spec: PolicySpec):
    found = json.loads(call("info", store, "json=true").out)
    assert (found["episodes"], found["steps"], found["rate_hz"]) == (3, 14, 10)
    assert found["duration_s"] == pytest.approx(1.4)
    assert found["lengths"] == {"min": 1, "median": 5, "max": 8}
    assert (found["successes"], found["failures"], found["outcome_unknown"]) == (2, 1, 0)
    assert found["cameras"] == {"images.front": [4, 4, 3], "images.wrist": [4, 4, 3]}
    assert found["frames"] == "raw"
    assert found["provenance"] == {"made by": "a test"}
    assert found["digest"] == EpisodeStore.open(store).digest()
    assert PolicySpec.from_dict(found["spec"]) == spec
    files = [file for file in store.rglob("*") if file.is_file()]
    assert found["bytes"] == sum(len(file.read_bytes()) for file in files)


def test_info_for_people_says_the_same_in_words(call: Call, store: Path):
    said = " ".join(call("info", store).out.split())
    assert "3 (2 successful, 1 failed)" in said
    assert "14 at 10 Hz, 1.4 s" in said
    assert "shoulder rad, gripper m" in said
    assert "lift the cube, take 0 (1)" in said


def test_an_empty_store_is_described_and_has_no_statistics(
    call: Call, tmp_path: Path, spec: PolicySpec
):
    EpisodeWriter.create(tmp_path / "empty", spec, {})
    assert json.loads(call("info", tmp_path / "empty", "json=true").out)["episodes"] == 0
    assert call("info", tmp_path / "empty").status == 0
    assert "has no episodes" in call("stats", tmp_path / "empty").err
    assert "has no episodes" in call("view", tmp_path / "empty").err


def test_stats_are_those_of_all_steps_with_labels_and_units(call: Call, store: Path):
    found = json.loads(call("stats", store, "json=true").out)
    opened = EpisodeStore.open(store)
    for name in ("proprio", "action"):
        steps = np.concatenate([opened.arrays(index)[name] for index in range(3)]).astype(float)
        told = found["vectors"][name]
        np.testing.assert_allclose(told["mean"], steps.mean(axis=0))
        np.testing.assert_allclose(told["std"], steps.std(axis=0))
        np.testing.assert_allclose(told["min"], steps.min(axis=0))
        np.testing.assert_allclose(told["max"], steps.max(axis=0))
        np.testing.assert_allclose(told["q99"], np.quantile(steps, 0.99, axis=0))
    assert found["vectors"]["proprio"]["labels"] == ["shoulder", "gripper"]
    assert found["vectors"]["proprio"]["units"] == ["rad", "m"]
    assert found["lengths"] == {"min": 1, "median": 5, "max": 8}
    said = call("stats", store).out
    assert "shoulder" in said
    assert "3 episodes of 1 to 8 steps" in said


def test_labels_and_paths_are_printed_whole_into_a_pipe(
    call: Call, tmp_path: Path, spec: PolicySpec
):
    long = "commanded_position_of_the_left_gripper"
    action = replace(spec.action, labels=(long, "y", "z"), low=(), high=())
    folder = tmp_path / ("long name " * 12)
    opened = EpisodeWriter.create(folder, replace(spec, action=action), {})
    opened.append(
        Episode(
            {t.name: np.zeros((2, *t.shape), t.dtype) for t in spec.observations},
            np.zeros((2, 3), np.float32),
            "lift",
            True,
            0,
        )
    )
    assert str(folder) in call("info", folder).out
    assert f"{long} " in call("stats", folder).out


def test_stats_of_what_cannot_be_opened_are_refused_in_one_line(call: Call, store: Path):
    chunk = store / "episodes/episode_000001/proprio/c.0.0"
    chunk.unlink()
    chunk.symlink_to(chunk.name)
    refused = call("stats", store)
    assert refused.status == 1
    assert "cannot read" in refused.err
    assert str(chunk) in refused.err
    assert len(refused.err.splitlines()) == 1


def test_a_store_at_an_address_is_described(call: Call, spec: PolicySpec, store: Path):
    writer = EpisodeWriter.create("memory://described/lift.zarr", spec, {})
    for index in range(3):
        writer.copy(EpisodeStore.open(store), index)
    there = json.loads(call("info", "memory://described/lift.zarr", "json=true").out)
    here = json.loads(call("info", store, "json=true").out)
    assert there["bytes"] > 0
    for key in ("episodes", "steps", "digest", "lengths", "instructions"):
        assert there[key] == here[key]
