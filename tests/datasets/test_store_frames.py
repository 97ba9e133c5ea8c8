"""Frames kept compressed or as JPEGs, and what episodes have beside what a policy reads."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from loopdit.datasets.spec import PolicySpec, TensorSpec
from loopdit.datasets.store import Episode, EpisodeStore, EpisodeWriter
from loopdit.datasets.store_root import extra_of_folder, folder_of_extra
from loopdit.errors import ConfigError, StoreError

MakeEpisode = Callable[[int, int], Episode]


def picture_spec(*images: TensorSpec) -> PolicySpec:
    return PolicySpec(images, TensorSpec("action", (1,), "float32"), "", 0.1)


def pictures(steps: int) -> np.ndarray:
    """Smooth frames (steps, 48, 64, 3), as cameras see, with a red cube of 3 pixels."""
    rows, columns = np.mgrid[0:48, 0:64]
    base = np.stack([rows * 2, columns * 2, 120 + rows + columns], axis=-1) % 256
    frames = np.repeat(base[None].astype(np.uint8), steps, axis=0)
    for step in range(steps):
        frames[step, 20:23, 10 + step : 13 + step] = (250, 10, 10)
    return frames


def of_pictures(frames: np.ndarray) -> Episode:
    return Episode(
        {"images.front": frames}, np.ones((len(frames), 1), np.float32), "lift", True, seed=0
    )


FRONT = TensorSpec("images.front", (48, 64, 3), "uint8")


@pytest.mark.parametrize(("quality", "least_db"), [(75, 32), (95, 38)])
def test_jpegs_are_close_to_what_was_recorded_and_closer_with_more_quality(
    tmp_path: Path, quality: int, least_db: float
):
    frames = pictures(4)
    writer = EpisodeWriter.create(tmp_path / "s", picture_spec(FRONT), {}, "jpeg", quality)
    writer.append(of_pictures(frames))
    read = EpisodeStore.open(tmp_path / "s").arrays(0)["images.front"]
    error = np.mean((read.astype(float) - frames) ** 2)
    assert 10 * np.log10(255**2 / error) > least_db
    # A cube of 3 pixels keeps its colour; with colour at half resolution it is (175, 33, 90).
    np.testing.assert_allclose(read[2, 20:23, 12:15].mean(axis=(0, 1)), (250, 10, 10), atol=12)


@pytest.mark.parametrize("frames", ["raw", "zstd", "jpeg"])
def test_chosen_frames_are_those_of_the_whole(tmp_path: Path, frames: str):
    EpisodeWriter.create(tmp_path / "s", picture_spec(FRONT), {}, frames).append(
        of_pictures(pictures(6))
    )
    store = EpisodeStore.open(tmp_path / "s")
    whole, chosen = store.decode(0, "images.front"), [5, 0, 5, 3]
    np.testing.assert_array_equal(store.decode(0, "images.front", chosen), whole[chosen])
    np.testing.assert_array_equal(whole, store.arrays(0)["images.front"])


def test_one_jpeg_is_decoded_without_the_others(tmp_path: Path):
    EpisodeWriter.create(tmp_path / "s", picture_spec(FRONT), {}, "jpeg").append(
        of_pictures(pictures(6))
    )
    store = EpisodeStore.open(tmp_path / "s")
    expected = store.arrays(0)["images.front"][4]
    folder = tmp_path / "s/episodes/episode_000000/images.front"
    start = int(np.fromfile(folder / "offsets/c.0", "<u8")[1])
    with open(folder / "jpegs/c.0", "rb+") as file:
        file.write(b"x" * start)  # the JPEG of step 0
    np.testing.assert_array_equal(store.decode(0, "images.front", [4])[0], expected)
    with pytest.raises(StoreError, match=r"images.front/jpegs/c.0 is damaged: the JPEG of step 0"):
        store.arrays(0)


def test_only_what_lies_there_as_plain_bytes_has_a_file_to_map(
    tmp_path: Path, spec: PolicySpec, episode: MakeEpisode
):
    for frames in ("raw", "zstd", "jpeg"):
        EpisodeWriter.create(tmp_path / frames, spec, {}, frames).append(episode(0, 5))
        store = EpisodeStore.open(tmp_path / frames)
        assert store.frames == frames
        assert store.is_plain("action")
        assert store.is_plain("images.front") == (frames == "raw")
        mapped = np.fromfile(store.file(0, "proprio"), "<f4").reshape(5, 2)
        np.testing.assert_array_equal(mapped, episode(0, 5).observations["proprio"])
    with pytest.raises(ValueError, match="not kept as a plain file"):
        store.file(0, "images.front")


def test_images_that_no_jpeg_holds_are_kept_without_loss(tmp_path: Path):
    depth = TensorSpec("images.depth", (48, 64), "uint16")
    values = np.random.default_rng(0).integers(0, 2**16, (4, 48, 64), dtype=np.uint16)
    episode = of_pictures(pictures(4))
    episode = replace(episode, observations={**episode.observations, "images.depth": values})
    EpisodeWriter.create(tmp_path / "s", picture_spec(FRONT, depth), {}, "jpeg").append(episode)
    store = EpisodeStore.open(tmp_path / "s")
    assert not store.is_plain("images.depth")
    np.testing.assert_array_equal(store.arrays(0)["images.depth"], values)


@pytest.mark.parametrize("frames", ["raw", "zstd", "jpeg"])
def test_what_was_read_cannot_be_written_to(
    tmp_path: Path, spec: PolicySpec, episode: MakeEpisode, frames: str
):
    EpisodeWriter.create(tmp_path / "s", spec, {}, frames).append(
        replace(episode(0, 5), extras={"reward": np.ones(5)})
    )
    store = EpisodeStore.open(tmp_path / "s")
    for array in [*store.arrays(0).values(), *store.extras(0).values()]:
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_compressing_keeps_an_episodes_digest_and_jpegs_have_one_of_their_own(
    tmp_path: Path, spec: PolicySpec, episode: MakeEpisode
):
    digests: dict[str, str] = {}
    for frames in ("raw", "zstd", "jpeg"):
        writer = EpisodeWriter.create(tmp_path / frames, spec, {}, frames)
        digests[frames] = writer.append(episode(0, 5)).digest
    assert digests["raw"] == digests["zstd"] != digests["jpeg"]
    worse = EpisodeWriter.create(tmp_path / "worse", spec, {}, "jpeg", 50).append(episode(0, 5))
    assert worse.digest != digests["jpeg"]


@pytest.mark.parametrize("frames", ["raw", "zstd", "jpeg"])
def test_a_length_that_no_memory_holds_is_told_and_not_tried(
    tmp_path: Path, spec: PolicySpec, episode: MakeEpisode, frames: str
):
    EpisodeWriter.create(tmp_path / "s", spec, {}, frames).append(episode(0, 4))
    index = tmp_path / "s/episodes.jsonl"
    index.write_text(index.read_text().replace('"length": 4', f'"length": {10**13}'))
    with pytest.raises(StoreError, match=r"episode_000000/images.front"):
        EpisodeStore.open(tmp_path / "s").arrays(0)


def test_copying_from_jpegs_to_jpegs_does_not_encode_again(
    tmp_path: Path, spec: PolicySpec, episode: MakeEpisode
):
    full = replace(episode(0, 5), extras={"reward": np.ones(5)}, metadata={"operator": "a"})
    record = EpisodeWriter.create(tmp_path / "from", spec, {}, "jpeg", 60).append(full)
    source = EpisodeStore.open(tmp_path / "from")
    copied = EpisodeWriter.create(tmp_path / "to", spec, {}, "jpeg", 95).copy(source, 0)
    assert copied == record
    plain = EpisodeWriter.create(tmp_path / "plain", spec, {}).copy(source, 0)
    assert plain.digest != record.digest
    for name, array in source.arrays(0).items():
        for other in ("to", "plain"):
            copy = EpisodeStore.open(tmp_path / other)
            np.testing.assert_array_equal(copy.arrays(0)[name], array)
            assert copy.metadata(0) == {"operator": "a"}


def test_an_unknown_way_to_keep_frames_is_refused(tmp_path: Path, spec: PolicySpec):
    with pytest.raises(ConfigError, match=r"frames='png' is unknown. Use one of: raw, zstd, jpeg"):
        EpisodeWriter.create(tmp_path / "s", spec, {}, "png")
    with pytest.raises(ConfigError, match="jpeg_quality=0 is not from 1 to 100"):
        EpisodeWriter.create(tmp_path / "s", spec, {}, "jpeg", 0)
    assert not (tmp_path / "s").exists()


def test_episodes_without_seed_or_outcome_keep_that_and_come_last(
    tmp_path: Path, spec: PolicySpec, episode: MakeEpisode
):
    writer = EpisodeWriter.create(tmp_path / "s", spec, {})
    for seed in (None, 3, -1, None, 0):
        unknown = replace(episode(len(writer.files.records()), 2), seed=seed, success=None)
        writer.append(unknown)
    store = EpisodeStore.open(tmp_path / "s")
    assert [record.success for record in store.episodes] == [None] * 5
    order = [store.episodes[i] for i in store.canonical_order()]
    assert [record.seed for record in order] == [-1, 0, 3, None, None]
    assert order[3].digest < order[4].digest


def test_extras_and_metadata_change_the_digest(
    tmp_path: Path, spec: PolicySpec, episode: MakeEpisode
):
    writer, base = EpisodeWriter.create(tmp_path / "s", spec, {}), episode(0, 5)
    reward = np.arange(5.0)
    variants = [
        base,
        replace(base, extras={"reward": reward}),
        replace(base, extras={"return": reward}),
        replace(base, extras={"reward": reward + 1}),
        replace(base, extras={"reward": reward.astype(np.float32)}),
        replace(base, metadata={"operator": "a"}),
        replace(base, metadata={"operator": "b"}),
        replace(base, success=None),
        replace(base, seed=None),
    ]
    assert len({writer.append(each).digest for each in variants}) == len(variants)
    swapped = {"b": reward, "a": reward + 1}
    one = writer.append(replace(base, extras=swapped)).digest
    assert writer.append(replace(base, extras=dict(sorted(swapped.items())))).digest == one


@pytest.mark.parametrize(
    ("extra", "refusal"),
    [
        (
            np.ones(4),
            r"extra 'reward' of the episode with seed 0 has shape \(4,\) .* \(5, \.\.\.\)",
        ),
        (np.array(1.0), r"has shape \(\)"),
        (np.array(list("abcde")), "dtype <U1"),
        (np.array([None] * 5), "dtype object"),
    ],
)
def test_an_extra_that_is_no_row_of_numbers_for_each_step_is_refused(
    store: Path, spec: PolicySpec, episode: MakeEpisode, extra: np.ndarray, refusal: str
):
    with pytest.raises(StoreError, match=refusal):
        EpisodeWriter.resume(store, spec).append(replace(episode(0, 5), extras={"reward": extra}))
    assert len(EpisodeStore.open(store).episodes) == 3


@pytest.mark.parametrize("metadata", [{"a": object()}, {"a": float("nan")}, {"a": np.ones(2)}])
def test_metadata_that_is_no_json_is_refused(
    store: Path, spec: PolicySpec, episode: MakeEpisode, metadata: dict[str, object]
):
    with pytest.raises(StoreError, match="metadata of the episode with seed 0 is not plain JSON"):
        EpisodeWriter.resume(store, spec).append(replace(episode(0, 5), metadata=metadata))


@given(st.text(min_size=1, max_size=40))
@example("zarr.json")
@example("../x")
@example("..")
@example("~2F")
@example("__a")
@example("observation.images.top")
def test_the_name_of_an_extra_can_be_read_from_its_folder(name: str):
    folder = folder_of_extra(name)
    assert extra_of_folder(folder) == name
    assert set(folder) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-~")
    assert not folder.startswith((".", "__"))
    assert folder != "zarr.json"


@pytest.mark.parametrize("name", ["", "é" * 60])
def test_an_extra_whose_name_fits_no_file_is_refused(
    store: Path, spec: PolicySpec, episode: MakeEpisode, name: str
):
    extras = {name: np.ones(5)}
    with pytest.raises(StoreError, match="an extra of an episode cannot be stored as"):
        EpisodeWriter.resume(store, spec).append(replace(episode(0, 5), extras=extras))
