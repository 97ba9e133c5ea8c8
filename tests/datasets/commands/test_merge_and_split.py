"""Stores of other stores' episodes: what is in them, and what is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.datasets.commands.calls import Call

from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.store import Episode, EpisodeStore, EpisodeWriter

MakeEpisode = Callable[[int, int], Episode]


@pytest.fixture
def other(tmp_path: Path, spec: PolicySpec, episode: MakeEpisode) -> Path:
    """Two episodes with seeds 7 and 8, one without an outcome and with all that can be known."""
    writer = EpisodeWriter.create(tmp_path / "other", spec, {"made_by": "another test"}, "zstd")
    writer.append(episode(7, 3))
    extras = {"reward": np.arange(4, dtype=np.float64)}
    writer.append(replace(episode(8, 4), success=None, extras=extras, metadata={"hand": "left"}))
    return tmp_path / "other"


def assert_same_episode(one: Episode, two: Episode) -> None:
    for mine, theirs in ((one.observations, two.observations), (one.extras, two.extras)):
        assert set(mine) == set(theirs)
        for name, array in mine.items():
            np.testing.assert_array_equal(array, theirs[name])
    np.testing.assert_array_equal(one.actions, two.actions)
    assert (one.instruction, one.success, one.seed) == (two.instruction, two.success, two.seed)
    assert one.metadata == two.metadata


def test_a_merged_store_has_every_episode_with_all_that_is_known_of_it(
    call: Call, store: Path, other: Path, tmp_path: Path
):
    done = call("merge", store, other, f"out={tmp_path / 'both'}")
    assert done.status == 0, done.err
    assert done.out.endswith("both: 5 episodes of 2 stores.\n")
    both = EpisodeStore.open(tmp_path / "both")
    sources = [EpisodeStore.open(store), EpisodeStore.open(other)]
    origin = [(sources[0], 0), (sources[0], 1), (sources[0], 2), (sources[1], 0), (sources[1], 1)]
    for index, (source, place) in enumerate(origin):
        assert both.episodes[index].digest == source.episodes[place].digest
        assert_same_episode(both.episode(index), source.episode(place))
    told = both.provenance["sources"]
    assert [one["provenance"] for one in told] == [source.provenance for source in sources]
    assert [one["digest"] for one in told] == [source.digest() for source in sources]
    assert [one["episodes"] for one in told] == [3, 2]
    assert both.frames == "raw"
    assert call("verify", tmp_path / "both").status == 0


def test_jpegs_are_merged_as_they_are(
    call: Call, tmp_path: Path, spec: PolicySpec, episode: MakeEpisode
):
    for name, seed, quality in (("a", 1, 80), ("b", 2, 40)):
        writer = EpisodeWriter.create(tmp_path / name, spec, {}, "jpeg", quality)
        writer.append(episode(seed, 3))
    assert call("merge", tmp_path / "a", tmp_path / "b", f"out={tmp_path / 'c'}").status == 0
    merged = EpisodeStore.open(tmp_path / "c")
    assert merged.frames == "jpeg"
    for index, name in enumerate("ab"):
        source = EpisodeStore.open(tmp_path / name)
        assert merged.episodes[index].digest == source.episodes[0].digest
        assert_same_episode(merged.episode(index), source.episode(0))


def test_stores_that_differ_in_their_spec_are_refused_with_field_and_both_values(
    call: Call, store: Path, tmp_path: Path, spec: PolicySpec
):
    slower = replace(spec, control_period_s=0.2)
    EpisodeWriter.create(tmp_path / "slow", slower, {})
    done = call("merge", store, tmp_path / "slow", f"out={tmp_path / 'both'}")
    assert done.status == 1
    assert "control_period_s is 0.1, there 0.2" in done.err
    assert str(store) in done.err
    assert str(tmp_path / "slow") in done.err
    assert not (tmp_path / "both").exists()


def test_an_episode_that_is_in_both_is_refused_unless_it_is_said_what_to_do(
    call: Call, store: Path, other: Path, tmp_path: Path
):
    out = f"out={tmp_path / 'both'}"
    refused = call("merge", store, other, store, out)
    assert refused.status == 1
    assert "episode_000000 of" in refused.err
    assert "duplicates=drop" in refused.err
    assert not (tmp_path / "both").exists()
    dropped = call("merge", store, other, store, out, "duplicates=drop")
    assert "5 episodes of 3 stores; 3 that were in two stores were left out" in dropped.out
    kept = call("merge", store, other, store, f"out={tmp_path / 'kept'}", "duplicates=keep")
    assert "8 episodes of 3 stores." in kept.out
    assert "is none of refuse, drop, keep" in call("merge", store, other, out, "duplicates=x").err


def test_a_damaged_episode_is_not_copied_as_if_it_were_whole(
    call: Call, store: Path, other: Path, tmp_path: Path
):
    chunk = store / "episodes/episode_000001/proprio/c.0.0"
    chunk.write_bytes(bytes(len(chunk.read_bytes())))
    done = call("merge", store, other, f"out={tmp_path / 'both'}")
    assert done.status == 1
    assert f"episode_000001 of {store} is damaged: proprio" in done.err
    assert f"policy-data repair {store}" in done.err
    assert [path.name for path in tmp_path.iterdir() if "both" in path.name] == []


def test_what_is_there_already_is_never_overwritten(call: Call, store: Path, other: Path):
    before = (other / "zarr.json").read_bytes()
    assert "something is there already" in call("merge", store, other, f"out={other}").err
    assert "something is there already" in call("split", store, f"out={other}").err
    assert (other / "zarr.json").read_bytes() == before
    assert "takes two stores or more, and was given 1" in call("merge", store, "out=x").err


def test_parts_hold_each_episode_once_and_are_the_same_again(
    call: Call, store: Path, tmp_path: Path
):
    options = ["shares=[0.7,0.3]", "seed=3"]
    assert call("split", store, f"out={tmp_path / 'one'}", *options).status == 0
    assert call("split", store, f"out={tmp_path / 'two'}", *options).status == 0
    digests: dict[str, list[str]] = {}
    for name in ("train", "validation"):
        stores = [EpisodeStore.open(tmp_path / part / f"{name}.zarr") for part in ("one", "two")]
        digests[name] = [record.digest for record in stores[0].episodes]
        assert digests[name] == [record.digest for record in stores[1].episodes]
        about = stores[0].provenance
        assert about["settings"] == {
            "part": name, "by": "shares", "shares": [0.7, 0.3], "seed": 3
        }  # fmt: skip
        assert about["sources"][0]["digest"] == EpisodeStore.open(store).digest()
    together = digests["train"] + digests["validation"]
    assert sorted(together) == sorted(r.digest for r in EpisodeStore.open(store).episodes)


def test_parts_by_outcome_and_by_instruction(call: Call, store: Path, tmp_path: Path):
    assert call("split", store, f"out={tmp_path / 'won'}", "by=success").status == 0
    won = EpisodeStore.open(tmp_path / "won/success.zarr")
    lost = EpisodeStore.open(tmp_path / "won/failure.zarr")
    assert [record.seed for record in won.episodes] == [0, 2]
    assert [record.seed for record in lost.episodes] == [1]
    done = call("split", store, f"out={tmp_path / 'told'}", "by=instruction")
    assert f"{tmp_path / 'told'}/lift-the-cube-take-1.zarr: 1 episodes, 1 steps" in done.out


def test_shares_that_cannot_be_leave_nothing_behind(call: Call, store: Path, tmp_path: Path):
    done = call("split", store, f"out={tmp_path / 'parts'}", "shares=[0.9,0.2]")
    assert done.status == 1
    assert "they sum to 1.1" in done.err
    assert "is none of shares, success, instruction" in call("split", store, "out=x", "by=y").err
    assert not (tmp_path / "parts").exists()


def test_stores_at_addresses_are_merged_and_split(call: Call, store: Path, other: Path):
    merged = call("merge", store, other, "out=memory://merging/both.zarr")
    assert merged.status == 0, merged.err
    told: dict[str, Any] = json.loads(call("info", "memory://merging/both.zarr", "json=true").out)
    assert told["episodes"] == 5
    assert call("split", "memory://merging/both.zarr", "out=memory://merging/parts").status == 0
    parts = [
        EpisodeStore.open(f"memory://merging/parts/{name}.zarr") for name in ("train", "validation")
    ]
    assert sum(len(part.episodes) for part in parts) == 5
