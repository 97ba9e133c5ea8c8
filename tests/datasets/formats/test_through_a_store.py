"""From robomimic, Diffusion Policy and Minari into an episode store and back: nothing is lost."""

import json
from pathlib import Path

import numpy as np
import pytest
from tests.datasets.formats import replay_buffers, robomimic_files
from tests.datasets.formats.minari_sets import DICT, LENGTHS, assert_same, make, minari_package

from loopdit.datasets.formats.convert import convert
from loopdit.datasets.store import EpisodeStore
from loopdit.errors import StoreError


@pytest.mark.parametrize("libero", [False, True])
def test_a_robomimic_file_keeps_its_masks_its_environment_and_every_attribute(
    tmp_path: Path, libero: bool
):
    source, again = tmp_path / "lift.hdf5", tmp_path / "again.hdf5"
    robomimic_files.write_source(source, libero=libero)
    convert(source, tmp_path / "store")
    assert convert(tmp_path / "store", again, to="robomimic").lost == []
    after = robomimic_files.content(again)
    assert json.loads(after.pop("data@loopdit")[1])["mapping"]  # what we add
    assert after == robomimic_files.content(source)
    assert ("mask/train" in after) is not libero
    assert json.loads(after["data@env_args"][1]) == robomimic_files.ENV_ARGS


def test_libero_s_store_is_upright_and_has_instruction_success_and_rate(tmp_path: Path):
    robomimic_files.write_source(tmp_path / "stove_demo.hdf5", libero=True)
    done = convert(tmp_path / "stove_demo.hdf5", tmp_path / "store")
    assert done.notes == [
        "the frames of stove_demo.hdf5 were saved with the last row first and are turned upright"
    ]
    store = EpisodeStore.open(tmp_path / "store")
    assert store.spec.control_period_s == pytest.approx(0.05)
    assert {(e.instruction, e.success) for e in store.episodes} == {("turn on the stove", True)}
    with robomimic_files.File(tmp_path / "stove_demo.hdf5") as file:
        saved = file["data/demo_0/obs/agentview_rgb"][()]
    np.testing.assert_array_equal(store.arrays(0)["images.agentview"], saved[:, ::-1])


def test_actions_beyond_robomimic_s_range_are_named_and_a_mapping_brings_them_in(
    tmp_path: Path,
):
    data = replay_buffers.push_t("uint8")
    data["action"][:] = 256
    replay_buffers.write_buffer(tmp_path / "pusht.zarr", data)
    mapping = tmp_path / "pixels.yaml"
    mapping.write_text(
        "cameras: {top: img}\nproprio: state\nrate_hz: 10\n"
        "action: {keys: action, scale: [0.00390625, 0.00390625], offset: [-1, -1]}\n"
    )
    convert(tmp_path / "pusht.zarr", tmp_path / "pixels", rate_hz=10)
    with pytest.raises(StoreError, match=r"episode 0: actions\[0\] is 256 at step 0"):
        convert(tmp_path / "pixels", tmp_path / "out.hdf5", to="robomimic")
    convert(tmp_path / "pusht.zarr", tmp_path / "store", mapping=str(mapping))
    convert(tmp_path / "store", tmp_path / "out.hdf5", to="robomimic")
    with robomimic_files.File(tmp_path / "out.hdf5") as file:
        assert not file["data/demo_0/actions"][()].any()


@pytest.mark.parametrize("frames", ["uint8", "float32"])
def test_a_replay_buffer_keeps_every_array(tmp_path: Path, frames: str):
    source, again = tmp_path / "pusht.zarr", tmp_path / "again.zarr"
    replay_buffers.write_buffer(source, replay_buffers.push_t(frames))
    convert(source, tmp_path / "store", rate_hz=10)
    convert(tmp_path / "store", again, to="diffusion_policy")
    assert replay_buffers.content(again) == replay_buffers.content(source)


@pytest.mark.parametrize("kind", ["hdf5", "arrow"])
def test_a_minari_set_keeps_last_observations_infos_seeds_and_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    make(DICT, kind)
    convert(tmp_path / "test" / "lift-v2", tmp_path / "store", rate_hz=25)
    assert [e.seed for e in EpisodeStore.open(tmp_path / "store").episodes] == [5, 6, 7]
    convert(tmp_path / "store", tmp_path / "again" / "lift-v2", to="minari")
    before, after = (minari_package.load_dataset(f"{name}/lift-v2") for name in ("test", "again"))
    assert after.observation_space == before.observation_space
    for one, other in zip(before, after, strict=True):
        for name in ("observations", "actions", "rewards", "terminations", "truncations", "infos"):
            assert_same(getattr(one, name), getattr(other, name))
    said = [list(d.storage.get_episode_metadata(range(len(LENGTHS)))) for d in (before, after)]
    assert said[0] == said[1]
