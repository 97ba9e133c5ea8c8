import runpy
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from loopdit.datasets.mixing import DataPart
from loopdit.datasets.store import EpisodeStore
from loopdit.datasets.video.latent_store import LatentKey, LatentStore, latent_folder
from loopdit.errors import StoreError

GOLDENS = Path(__file__).parents[2] / "goldens"
GOLDEN = GOLDENS / "latents_v1"
made: dict[str, Any] = runpy.run_path(str(GOLDENS / "make_latents.py"))
KEY = LatentKey("0123456789abcdef", "images.front", 9, 64, 96, "pad", 1)
SHAPE = (3, 16, 8, 12)


def some(clips: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(clips, *SHAPE)).astype(np.float32)


def test_what_is_kept_is_read_by_zarr_to_eleven_bits(tmp_path: Path):
    store = LatentStore.at(tmp_path / "kept", KEY, SHAPE)
    latents = some(5)
    store.write("a" * 32, latents)
    found = zarr.open_group(tmp_path / "kept", mode="r")["a" * 32]
    assert isinstance(found, zarr.Array)
    assert found.dtype == np.float16
    np.testing.assert_allclose(np.asarray(found[:]), latents, rtol=2**-11, atol=1e-7)


def test_the_format_is_that_of_the_files_that_are_committed(tmp_path: Path):
    made["write_golden"](tmp_path / "kept")
    for file in GOLDEN.rglob("*"):
        if file.is_file():
            again = tmp_path / "kept" / file.relative_to(GOLDEN)
            assert again.read_bytes() == file.read_bytes(), file.name
    old = LatentStore.at(GOLDEN, made["KEY"], made["SHAPE"])
    kept = np.fromfile(old.file(made["EPISODE"]), "<f2").reshape(2, *made["SHAPE"])
    np.testing.assert_array_equal(kept, made["golden_latents"]())


def test_latents_of_another_version_are_refused(tmp_path: Path):
    shutil.copytree(GOLDEN, tmp_path / "kept")
    root = tmp_path / "kept" / "zarr.json"
    root.write_text(root.read_text().replace('"format_version": 1', '"format_version": 2'))
    with pytest.raises(StoreError, match="holds latents of version 2, where 1 is read"):
        LatentStore.at(tmp_path / "kept", made["KEY"], made["SHAPE"])


def test_it_goes_on_with_the_episodes_that_are_missing(tmp_path: Path, store: Path):
    parts = [DataPart(EpisodeStore.open(store), range(3))]
    kept = LatentStore.at(tmp_path / "kept", KEY, SHAPE)
    order = parts[0].in_order()
    assert [index for _, index in kept.missing(parts)] == order
    first = parts[0].store.episodes[order[0]]
    kept.write(first.digest, some(first.length))
    again = LatentStore.at(tmp_path / "kept", KEY, SHAPE)
    assert [index for _, index in again.missing(parts)] == order[1:]


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"vae": "f" * 16}, "autoencoder 0123456789abcdef .this training's is f{16}"),
        ({"height": 480, "width": 720}, "video.height 64 .this training's is 480., video.width 96"),
        ({"frames": 13}, "video.frames 9 .this training's is 13"),
        ({"fit": "crop"}, "video.fit pad .this training's is crop"),
        ({"camera": "images.wrist"}, "video.camera images.front"),
    ],
)
def test_latents_made_otherwise_are_refused_by_what_differs(
    tmp_path: Path, other: dict[str, object], named: str
):
    LatentStore.at(tmp_path / "kept", KEY, SHAPE)
    with pytest.raises(StoreError, match=named):
        LatentStore.at(tmp_path / "kept", replace(KEY, **other), SHAPE)


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path: Path, store: Path):
    with pytest.raises(StoreError, match="holds no latents"):
        LatentStore.at(store, KEY, SHAPE)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("of value")
    with pytest.raises(StoreError, match=r"thesis\.txt in it and is no folder of latents"):
        LatentStore.at(tmp_path / "mine", KEY, SHAPE)
    assert [name.name for name in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_latents_that_float16_cannot_hold_are_refused_and_nothing_is_kept(tmp_path: Path):
    store = LatentStore.at(tmp_path / "kept", KEY, SHAPE)
    with pytest.raises(StoreError, match=r"not finite as float16: .* made 1e\+06"):
        store.write("a" * 32, some(1) * 0 + 1e6)
    assert not store.has("a" * 32)
    assert [file.name for file in store.folder.iterdir()] == ["zarr.json"]


def test_what_killed_writers_left_is_no_episode_and_is_swept(tmp_path: Path):
    store = LatentStore.at(tmp_path / "kept", KEY, SHAPE)
    (store.folder / ".tmp-killed" / ("a" * 32)).mkdir(parents=True)
    assert not store.has("a" * 32)
    store.sweep()
    assert [file.name for file in store.folder.iterdir()] == ["zarr.json"]


def test_two_that_encode_the_same_episode_keep_it_once(tmp_path: Path):
    store = LatentStore.at(tmp_path / "kept", KEY, SHAPE)
    store.write("a" * 32, some(2, seed=1))
    store.write("a" * 32, some(2, seed=2))
    kept = np.fromfile(store.file("a" * 32), "<f2").reshape(2, *SHAPE)
    np.testing.assert_array_equal(kept, some(2, seed=1).astype("<f2"))
    assert len(list(store.folder.iterdir())) == 2


def test_latents_lie_beside_their_episodes_unless_a_folder_is_named(store: Path):
    parts = [DataPart(EpisodeStore.open(store), range(3))]
    assert latent_folder("", parts) == store.resolve().with_name("store.latents")
    assert latent_folder("elsewhere", parts) == Path("elsewhere")
