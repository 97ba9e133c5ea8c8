"""Recipes and refusals of `policy-train graft` as its user meets them, at the smallest size."""

import json
import sys
from pathlib import Path

import pytest
from tests.policy.graft.two_squares import two_squares

from loopdit.datasets.formats.convert import convert
from loopdit.datasets.store import EpisodeStore
from loopdit.datasets.video.clips import ClipConfig
from loopdit.datasets.video.latent_store import LatentKey, LatentStore
from loopdit.policy.graft.latents import latent_shape, small_vae, vae_digest
from loopdit.policy.graft.train import main

RECIPES = Path(__file__).parents[3] / "configs" / "train_graft" / "recipe"
EXCERPT = Path(__file__).parents[2] / "datasets" / "formats" / "bridge_excerpt"
SMALL_CLIPS = ClipConfig(height=32, width=64, every=5)
# Three stages for K to go through; something to validate on.
MORE = {"paper": ("steps=3", "depth.stage=1"), "few": ("steps=2", "validation=0.5")}
SMALL = (
    *("video.height=32", "video.width=64", "video.every=5", "batch_size=2", "device=cpu"),
    *("threads=1", "workers=0", "validation=0"),
)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("stores")
    convert(EXCERPT, folder / "bridge.zarr", mapping="bridge")
    two_squares(folder / "squares.zarr")
    return {"one": folder / "bridge.zarr", "several": folder / "squares.zarr"}


@pytest.mark.parametrize("recipe", sorted(path.stem for path in RECIPES.glob("*.yaml")))
def test_every_recipe_trains_two_steps(
    recipe: str,
    stores: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(sys, "argv", ["policy-train"])
    data = stores["several" if recipe == "robots" else "one"]
    more, out = MORE.get(recipe, ("steps=2",)), tmp_path / "out"
    places = [f"data={data}", f"out={out}", f"latents={tmp_path / 'latents'}"]
    main([f"recipe={recipe}", *places, *SMALL, *more])
    told = capsys.readouterr()
    assert not told.err, told.err
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert f"steps={rows[-1]['step']}" == more[0]
    assert (out / "checkpoint.json").is_file()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("video.frames=13", "too few frames for a clip of video.frames=13: episode_000000"),
        ("video.height=48", "made with video.height 32 (this training's is 48)"),
        ("video.frames=12", "video.frames=12 must be 4 k + 1"),
        ("video.camera=wrist", "video.camera=wrist is no camera of the data, which has images."),
        ("decoder.kind=paper", "decoder.kind=paper says one action for a whole clip"),
        ("graft.robots=2", "an action of 7 numbers is not shared equally by graft.robots=2"),
    ],
)
def test_what_cannot_be_trained_on_is_named_before_training(
    given: str,
    said: str,
    stores: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(sys, "argv", ["policy-train"])
    store = EpisodeStore.open(stores["one"])
    key = LatentKey.of(SMALL_CLIPS, "images.image_0", vae_digest(small_vae()))
    LatentStore.at(tmp_path / "latents", key, latent_shape(small_vae(), SMALL_CLIPS))
    out = tmp_path / "out"
    options = [f"data={store.path}", f"out={out}", f"latents={tmp_path / 'latents'}", "steps=2"]
    with pytest.raises(SystemExit):
        main([*options, *SMALL, given])
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert not (out / "checkpoint.json").exists()
