"""The grid of the grafted transformer, at the smallest size, on a film and on real episodes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from loopdit.cache_folder import cache_folder
from loopdit.datasets.action_filters import binarise
from loopdit.datasets.formats.convert import convert
from loopdit.datasets.store import EpisodeStore
from loopdit.datasets.video.clips import ClipConfig
from loopdit.errors import ConfigError, StoreError
from loopdit.eval.experiments.experiment import named
from loopdit.eval.experiments.graft.backbone import BackboneOptions, pretrained, untrained
from loopdit.eval.experiments.graft.clips import open_clips
from loopdit.eval.experiments.graft.probes import ProbeOptions
from loopdit.eval.experiments.plan import runs_of
from loopdit.eval.experiments.studies.graft_grid import Options, run
from loopdit.policy.graft.backbone import TINY, load_backbone
from loopdit.policy.graft.config import GraftConfig
from loopdit.policy.graft.latents import LatentEncoder

EXCERPT = Path(__file__).parents[3] / "datasets" / "formats" / "bridge_excerpt"
CPU = torch.device("cpu")
SMALL = Options(
    steps=5,
    batch=2,
    looks=1,
    most_held_out=4,
    video=ClipConfig(height=32, width=32, every=5),
    backbone=BackboneOptions(width=16, blocks=1),
    graft=GraftConfig(loops=2),
    probes=ProbeOptions(steps=2, batch=2, width=32, clips=4),
)


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction] - pytest calls it
    monkeypatch.setenv("LOOPDIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def bridge(tmp_path: Path) -> EpisodeStore:
    convert(EXCERPT, tmp_path / "bridge.zarr", mapping="bridge")
    return EpisodeStore.open(tmp_path / "bridge.zarr")


def test_a_cell_follows_from_its_options_and_seed_alone():
    one, same, other = (run(SMALL, seed, CPU) for seed in (0, 0, 1))
    assert one == same
    assert one.metrics["action_loss"] != other.metrics["action_loss"]
    # What does not depend on the seed: the held-out clips, their noise, the constant.
    for name in ("constant_action_loss", "zero_diffusion_loss", "constant_raw"):
        assert one.metrics[name] == other.metrics[name]
    assert one.curve is not None
    assert one.curve["action_loss"] == [one.metrics["action_loss"]]


def test_it_trains_what_the_cell_says_and_counts_it():
    # Of one block of width 16 with two loops: embeddings and gates, norm_final, and the head for
    # the film's three actions.
    frozen = 2 * (2 * 16 + 1) + 2 * 16 + (16 * 8 + 8 + 8 * 3 + 3)
    assert run(SMALL, 0, CPU).parameters == frozen
    half = run(replace(SMALL, graft=GraftConfig(loops=2, freeze="half")), 0, CPU).parameters
    # time_embedding 16 to 64 to 64, norm_out 64 to 32 with its norm, proj_out to 2 x 2 x 16.
    assert half - frozen == (17 * 64 + 65 * 64) + (65 * 32 + 32) + 17 * 64


def test_constants_are_those_of_the_training_episodes_on_the_held_out_ones(bridge: EpisodeStore):
    options = replace(SMALL, data=str(bridge.path), held_out=0.5, most_held_out=100)
    found = run(options, 0, CPU).metrics
    actions = []
    for index in range(2):
        values = bridge.arrays(index)["action"].copy()
        values[:, 6] = binarise(values[:, 6], 0.0, 1.0)
        actions.append(values)
    either = [
        float(((held[[0, 5]] - trained.mean(0)) ** 2).mean())
        for held, trained in (actions, actions[::-1])
    ]
    wanted = min(either, key=lambda value: abs(value - found["constant_raw"]))
    assert found["constant_raw"] == pytest.approx(wanted, rel=1e-4)
    assert found["constant_action_raw"] == pytest.approx(wanted, rel=1e-4)


def test_latents_and_the_backbone_are_made_once_for_all_cells(bridge: EpisodeStore):
    options = BackboneOptions(width=16, blocks=1, steps=3, batch=2)
    encoder = LatentEncoder(untrained(options).vae)
    assert isinstance(bridge.path, Path)
    with open_clips(str(bridge.path), SMALL.video, encoder, 0.5, CPU) as clips:
        first = pretrained(untrained(options), options, clips).transformer.state_dict()
        (file,) = cache_folder("experiments").glob("backbone-*.safetensors")
        written = file.stat().st_mtime_ns
        again = pretrained(untrained(options), options, clips).transformer.state_dict()
        assert file.stat().st_mtime_ns == written
        fresh = untrained(options).transformer.state_dict()
        assert all(torch.equal(first[name], again[name]) for name in first)
        assert any(not torch.equal(first[name], fresh[name]) for name in first)
    (folder,) = bridge.path.parent.glob("bridge.latents-9x32x32-pad-5-*")
    kept = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    with open_clips(str(bridge.path), SMALL.video, encoder, 0.5, CPU) as clips:
        assert len(clips.measured(clips.held_out, 1, 100).latents) == 2
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*")} == kept


def test_a_backbone_learns_to_denoise_before_it_is_grafted(bridge: EpisodeStore):
    learned = replace(
        SMALL,
        data=str(bridge.path),
        held_out=0.5,
        backbone=BackboneOptions(width=32, blocks=1, steps=120, batch=4),
        probes=ProbeOptions(steps=0),
    )
    after = run(learned, 0, CPU).metrics
    before = run(replace(learned, backbone=replace(learned.backbone, steps=0)), 0, CPU).metrics
    assert after["diffusion_loss"] < 0.8 * before["diffusion_loss"]
    assert after["diffusion_loss"] < after["zero_diffusion_loss"]
    assert np.isnan(before.get("rich_raw", np.nan))


def test_the_weights_of_a_folder_are_grafted_as_they_are_with_less_memory(
    bridge: EpisodeStore, tmp_path: Path
):
    backbone = load_backbone(TINY)
    for name, part in zip(("transformer", "vae", "scheduler"), backbone, strict=True):
        part.save_pretrained(tmp_path / "model" / name)
    folder = BackboneOptions(folder=str(tmp_path / "model"))
    plain = replace(SMALL, data=str(bridge.path), held_out=0.5, backbone=folder)
    sparing = replace(plain, precision="bf16", checkpoint="loop")
    one, other = run(plain, 0, CPU), run(sparing, 0, CPU)
    width = 48
    loops = 2 * 2 * (2 * width + 1)  # two blocks, two loops
    assert one.parameters == other.parameters == loops + 2 * width + 199
    for name in ("action_loss", "diffusion_loss", "direct_normalised"):
        assert other.metrics[name] == pytest.approx(one.metrics[name], rel=0.05)


def test_what_cannot_be_run_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"stages=2 end before loops=3"):
        replace(SMALL, graft=GraftConfig(loops=3), stages=2)
    with pytest.raises(StoreError, match="there is no episode store at"):
        run(replace(SMALL, data=str(tmp_path / "nothing")), 0, CPU)
    with pytest.raises(ConfigError, match=r"no folder here"):
        run(replace(SMALL, backbone=BackboneOptions(folder=str(tmp_path / "no"))), 0, CPU)


def test_the_grid_has_the_papers_twelve_cells_at_every_scale():
    for scale, seeds in (("smoke", 1), ("cpu", 3), ("paper", 3)):
        runs = list(runs_of(named("26"), scale))
        assert len(runs) == 12 * seeds
        cells = {(r.options["graft"]["loops"], r.options["graft"]["freeze"]) for r in runs}
        assert cells == {(k, f) for k in range(1, 5) for f in ("frozen", "half", "unfrozen")}
