"""policy-data convert as it is called; what is converted into what is tested beside `formats`."""

from pathlib import Path

import numpy as np
import pytest
from tests.datasets.commands.calls import Call

from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.store import EpisodeStore, EpisodeWriter


def test_a_store_with_other_frames_has_the_same_episodes(call: Call, store: Path, tmp_path: Path):
    done = call("convert", store, tmp_path / "small.zarr", "frames=zstd")
    assert done.status == 0, done.err
    assert done.out.endswith("small.zarr: 3 episodes, 14 steps.\n")
    small = EpisodeStore.open(tmp_path / "small.zarr")
    assert small.frames == "zstd"
    assert small.digest() == EpisodeStore.open(store).digest()
    assert call("verify", tmp_path / "small.zarr").status == 0


def test_there_and_back_through_another_format_gives_the_same_store(
    call: Call, store: Path, tmp_path: Path
):
    pytest.importorskip("h5py")
    there = call("convert", store, tmp_path / "demo.hdf5", "to=robomimic")
    assert there.status == 0, there.err
    back = call("convert", tmp_path / "demo.hdf5", tmp_path / "back.zarr")
    assert back.status == 0, back.err
    one, two = EpisodeStore.open(store), EpisodeStore.open(tmp_path / "back.zarr")
    assert two.spec == one.spec
    for index in range(3):
        theirs = two.arrays(index)
        for name, array in one.arrays(index).items():
            np.testing.assert_array_equal(array, theirs[name])
        assert two.episodes[index].instruction == one.episodes[index].instruction
        assert two.episodes[index].success == one.episodes[index].success


def test_what_is_lost_is_printed(call: Call, store: Path, tmp_path: Path):
    pytest.importorskip("h5py")
    done = call("convert", store, tmp_path / "demo.hdf5", "to=robomimic")
    assert "\nlost: " in done.out


@pytest.mark.parametrize("frames", ["raw", "jpeg"])
def test_a_damaged_episode_is_not_converted_as_if_it_were_whole(
    call: Call, tmp_path: Path, store: Path, frames: str
):
    chunk = store / "episodes/episode_000001/images.front/c.0.0.0.0"
    content = bytearray(chunk.read_bytes())
    content[0] ^= 1
    chunk.write_bytes(content)
    done = call("convert", store, tmp_path / "copy.zarr", f"frames={frames}")
    assert done.status == 1
    assert f"episode_000001 of {store} is damaged: images.front: " in done.err
    assert not (tmp_path / "copy.zarr").exists()
    skipping = call("convert", store, tmp_path / "copy.zarr", f"frames={frames}", "skip_bad=true")
    assert "2 episodes, 13 steps" in skipping.out
    assert f"left out: episode_000001 of {store} is damaged" in skipping.out


def test_jpegs_stay_as_they_are_on_the_way_to_an_address_and_back(
    call: Call, tmp_path: Path, store: Path, spec: PolicySpec
):
    writer = EpisodeWriter.create(tmp_path / "jpeg.zarr", spec, {}, "jpeg", 30)
    writer.copy(EpisodeStore.open(store), 2)
    there = "memory://converting/jpeg.zarr"
    assert call("convert", tmp_path / "jpeg.zarr", there, "frames=jpeg").status == 0
    assert call("convert", there, tmp_path / "back.zarr", "frames=jpeg").status == 0
    one, two = EpisodeStore.open(tmp_path / "jpeg.zarr"), EpisodeStore.open(tmp_path / "back.zarr")
    assert one.digest() == two.digest()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["format=rlsd"], "format=rlsd is none of auto, store, rlds"),
        (["to=zip"], "to=zip is none of store, rlds"),
        (["frames=png"], "frames='png' is unknown. Use one of: raw, zstd, jpeg."),
        (["jpeg_quality=0"], "jpeg_quality=0 is not from 1 to 100"),
        (["rate_hz=-1"], "rate_hz=-1.0 is negative"),
        (["mapping=bridge"], "is an episode store, which says so itself"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_written(
    call: Call, store: Path, tmp_path: Path, options: list[str], said: str
):
    done = call("convert", store, tmp_path / "new", *options)
    assert done.status == 1
    assert len(done.err.splitlines()) == 1
    assert said in done.err
    assert not (tmp_path / "new").exists()


def test_a_source_that_is_nothing_known_is_named(call: Call, tmp_path: Path):
    (tmp_path / "notes.txt").write_text("no data")
    done = call("convert", tmp_path / "notes.txt", tmp_path / "new")
    assert "notes.txt looks like none of the formats" in done.err
    assert "there is nothing at" in call("convert", tmp_path / "absent", tmp_path / "new").err


def test_lerobots_frames_can_be_png_which_loses_nothing(call: Call, store: Path, tmp_path: Path):
    pytest.importorskip("pyarrow")
    there = call("convert", store, tmp_path / "set", "to=lerobot", "codec=png")
    assert there.status == 0, there.err
    assert "is lossy" not in there.out
    back = call("convert", tmp_path / "set", tmp_path / "back.zarr")
    assert f"next: policy-data view {tmp_path / 'back.zarr'}" in back.out
    one, two = EpisodeStore.open(store), EpisodeStore.open(tmp_path / "back.zarr")
    for name, array in one.arrays(0).items():
        np.testing.assert_array_equal(two.arrays(0)[name], array)
    again = call("convert", tmp_path / "set", tmp_path / "back.zarr")
    assert "3 episodes were there already; 0 more" in again.out


def test_an_unknown_codec_and_one_for_another_format_are_refused(
    call: Call, store: Path, tmp_path: Path
):
    unknown = call("convert", store, tmp_path / "set", "to=lerobot", "codec=mpeg")
    assert (unknown.status, "codec=mpeg is none of auto, av1, h264, png" in unknown.err) == (
        1,
        True,
    )
    other = call("convert", store, tmp_path / "set", "to=rlds", "codec=png")
    assert (other.status, "give it with to=lerobot" in other.err) == (1, True)
    assert not (tmp_path / "set").exists()
