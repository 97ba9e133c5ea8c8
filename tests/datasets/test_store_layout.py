"""What is on the disk is Zarr v3: the zarr library reads all of it, and writes it the same."""

import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from PIL import Image
from zarr.codecs import BytesCodec, ZstdCodec

from loopdit.datasets.spec import PolicySpec, TensorSpec
from loopdit.datasets.store import Episode, EpisodeStore, EpisodeWriter

MakeEpisode = Callable[[int, int], Episode]
OF_ANY_EXTRA = ["bool", "int8", "uint16", "int64", "float16", "float32", "float64", "complex64"]


@st.composite
def stored_data(draw: st.DrawFn) -> tuple[PolicySpec, Episode]:
    """Any spec of up to three observations, and an episode that fits it."""
    length = draw(st.integers(1, 6))
    dtypes = st.sampled_from(["uint8", "int16", "int64", "float32", "float64", "bool"])
    tensors: list[TensorSpec] = []
    observations: dict[str, np.ndarray] = {}
    for name in ("images.front", "proprio", "touch")[: draw(st.integers(1, 3))]:
        shape = tuple(draw(st.lists(st.integers(1, 4), max_size=3)))
        dtype = draw(dtypes)
        elements = arrays_of.from_dtype(np.dtype(dtype))
        if "float" in dtype:  # what is not finite is refused
            elements = elements.filter(np.isfinite)
        tensors.append(TensorSpec(name, shape, dtype))
        observations[name] = draw(arrays_of.arrays(dtype, (length, *shape), elements=elements))
    extras: dict[str, np.ndarray] = {}
    for name in draw(st.lists(st.text(min_size=1, max_size=12), max_size=3, unique=True)):
        shape = (length, *draw(st.lists(st.integers(0, 3), max_size=2)))
        extras[name] = draw(arrays_of.arrays(draw(st.sampled_from(OF_ANY_EXTRA)), shape))
    spec = PolicySpec(tuple(tensors), TensorSpec("action", (2,), "float32"), "", 0.1)
    actions = np.full((length, 2), draw(st.floats(-1, 1, width=32)), np.float32)
    metadata = draw(st.dictionaries(st.text(), st.integers() | st.lists(st.text()), max_size=2))
    success, seed = draw(st.booleans() | st.none()), draw(st.integers() | st.none())
    return spec, Episode(observations, actions, draw(st.text()), success, seed, extras, metadata)


@settings(max_examples=40, deadline=None)
@given(data=stored_data(), frames=st.sampled_from(["raw", "zstd"]))
def test_any_episode_comes_back_bit_for_bit_through_the_store_and_through_zarr(
    data: tuple[PolicySpec, Episode], frames: str
):
    spec, episode = data
    with tempfile.TemporaryDirectory() as folder:
        record = EpisodeWriter.create(f"{folder}/store", spec, {}, frames).append(episode)
        store = EpisodeStore.open(f"{folder}/store")
        group = zarr.open_group(f"{folder}/store/episodes/{record.id}", mode="r")
        assert store.spec == spec
        assert store.episodes == [record]
        read = store.episode(0)
        assert (read.instruction, read.success, read.seed, read.metadata) == (
            episode.instruction,
            episode.success,
            episode.seed,
            episode.metadata,
        )
        arrays = {**episode.observations, "action": episode.actions}
        assert set(group.array_keys()) == set(arrays)
        assert_same(store.arrays(0), arrays)
        assert_same({name: np.asarray(group[name]) for name in group.array_keys()}, arrays)
        assert_same(dict(read.extras), dict(episode.extras))
        if episode.extras:
            of_zarr = zarr.open_group(f"{folder}/store/episodes/{record.id}/extras", mode="r")
            found = [np.asarray(array).tobytes() for _, array in of_zarr.arrays()]
            assert sorted(found) == sorted(a.tobytes() for a in episode.extras.values())


def assert_same(read: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert set(read) == set(expected)
    for name, array in expected.items():
        assert read[name].dtype == array.dtype
        assert read[name].shape == array.shape
        assert read[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32", "bool"])
def test_an_array_has_the_metadata_that_the_zarr_library_writes(tmp_path: Path, dtype: str):
    spec = PolicySpec(
        (TensorSpec("tensor", (3, 2), dtype),), TensorSpec("action", (1,), "float32"), "", 0.1
    )
    values = np.ones((4, 3, 2), dtype)
    episode = Episode({"tensor": values}, np.ones((4, 1), np.float32), "", True, 0)
    EpisodeWriter.create(tmp_path / "store", spec, {}).append(episode)
    zarr.create_array(
        tmp_path / "theirs",
        data=values,
        chunks=values.shape,
        filters=None,
        compressors=None,
        chunk_key_encoding={"name": "default", "separator": "."},
    )
    ours = tmp_path / "store/episodes/episode_000000/tensor"
    theirs = tmp_path / "theirs"
    assert json.loads((ours / "zarr.json").read_text()) == json.loads(
        (theirs / "zarr.json").read_text()
    )
    assert (ours / "c.0.0.0").read_bytes() == (theirs / "c.0.0.0").read_bytes()


def large_frames(length: int) -> tuple[PolicySpec, Episode]:
    """Frames of 768 KiB that compress, so that an episode of zstd has several chunks."""
    front = np.zeros((length, 512, 512, 3), np.uint8)
    front[:, :, 100:200] = np.random.default_rng(0).integers(0, 255, (length, 512, 100, 3))
    spec = PolicySpec(
        (TensorSpec("images.front", (512, 512, 3), "uint8"),),
        TensorSpec("action", (1,), "float32"),
        "",
        0.1,
    )
    return spec, Episode({"images.front": front}, np.ones((length, 1), np.float32), "", True, 0)


def test_compressed_frames_have_the_metadata_and_the_chunks_that_the_zarr_library_writes(
    tmp_path: Path,
):
    spec, episode = large_frames(14)
    front = episode.observations["images.front"]
    EpisodeWriter.create(tmp_path / "store", spec, {}, "zstd").append(episode)
    ours = tmp_path / "store/episodes/episode_000000/images.front"
    metadata = json.loads((ours / "zarr.json").read_text())
    chunk = metadata["chunk_grid"]["configuration"]["chunk_shape"]
    zarr.create_array(
        tmp_path / "theirs",
        data=front,
        chunks=tuple(chunk),
        filters=None,
        serializer=BytesCodec(endian=None),
        compressors=ZstdCodec(level=metadata["codecs"][1]["configuration"]["level"], checksum=True),
        chunk_key_encoding={"name": "default", "separator": "."},
    )
    theirs = {f.name: f.read_bytes() for f in (tmp_path / "theirs").iterdir()}
    found = {f.name: f.read_bytes() for f in ours.iterdir()}
    assert json.loads(found.pop("zarr.json")) == json.loads(theirs.pop("zarr.json"))
    assert found == theirs
    assert len(found) > 1
    assert np.prod(chunk) <= 4 << 20


def test_chosen_compressed_frames_are_decoded_from_their_chunks_alone(tmp_path: Path):
    spec, episode = large_frames(14)
    front = episode.observations["images.front"]
    EpisodeWriter.create(tmp_path / "store", spec, {}, "zstd").append(episode)
    store = EpisodeStore.open(tmp_path / "store")
    (tmp_path / "store/episodes/episode_000000/images.front/c.0.0.0.0").unlink()
    np.testing.assert_array_equal(
        store.decode(0, "images.front", [13, 12, 13]), front[[13, 12, 13]]
    )


def test_the_frames_of_a_jpeg_store_are_jpegs_that_zarr_and_pillow_find(
    tmp_path: Path, spec: PolicySpec, episode: MakeEpisode
):
    EpisodeWriter.create(tmp_path / "store", spec, {}, "jpeg", 90).append(episode(0, 5))
    store = EpisodeStore.open(tmp_path / "store")
    group = zarr.open_group(tmp_path / "store/episodes/episode_000000", mode="r")
    assert sorted(group.array_keys()) == ["action", "proprio"]
    camera = group["images.front"]
    assert isinstance(camera, zarr.Group)
    assert camera.attrs["layout"] == "frame t is the JPEG jpegs[offsets[t]:offsets[t + 1]]"
    offsets, jpegs = np.asarray(camera["offsets"]), np.asarray(camera["jpegs"])
    assert (offsets.dtype, jpegs.dtype) == (np.uint64, np.uint8)
    frames = store.arrays(0)["images.front"]
    for step in range(5):
        file = tmp_path / f"{step}.jpg"
        file.write_bytes(jpegs[offsets[step] : offsets[step + 1]].tobytes())
        with Image.open(file) as image:
            assert image.mode == "RGB"
            np.testing.assert_array_equal(np.asarray(image), frames[step])


def test_plain_zarr_finds_the_spec_and_every_episode(store: Path, spec: PolicySpec):
    root = zarr.open_group(store, mode="r")
    assert root.attrs["format"] == "loopdit-episodes"
    assert root.attrs["format_version"] == 2
    assert root.attrs["frames"] == "raw"
    assert root.attrs["spec"] == spec.to_dict()
    assert root.attrs["provenance"] == {"made by": "a test"}
    episodes = zarr.open_group(store / "episodes", mode="r")
    assert sorted(episodes.group_keys()) == ["episode_000000", "episode_000001", "episode_000002"]
    assert episodes["episode_000002"].attrs["length"] == 8
    assert episodes["episode_000002"].attrs["instruction"] == "lift the cube, take 2"


def test_plain_zarr_finds_extras_and_metadata(
    tmp_path: Path, spec: PolicySpec, episode: MakeEpisode
):
    reward = np.linspace(0, 1, 5)
    given_episode = replace(episode(0, 5), extras={"reward": reward}, metadata={"operator": "a"})
    EpisodeWriter.create(tmp_path / "store", spec, {}).append(given_episode)
    group = zarr.open_group(tmp_path / "store/episodes/episode_000000", mode="r")
    assert group.attrs["metadata"] == {"operator": "a"}
    np.testing.assert_array_equal(np.asarray(group["extras/reward"]), reward)
