"""What is true of every format: our own recordings and real ones come back from it."""

from pathlib import Path

import numpy as np
import pytest
from tests.datasets.formats.rlds_episodes import foreign_episode, write_data_set

from loopdit.datasets.formats.convert import convert
from loopdit.datasets.formats.registry import FORMATS, format_named, recognized_format
from loopdit.datasets.store import EpisodeStore
from loopdit.errors import ConfigError

EXCERPT = Path(__file__).parent / "bridge_excerpt"
SUFFIXES = {"robomimic": ".hdf5", "diffusion_policy": ".zarr"}
VIDEO = ("lerobot",)  # its frames are videos: near, not equal

pytestmark = pytest.mark.parametrize("name", FORMATS)


def there_and_back(source: Path, name: str, folder: Path) -> tuple[EpisodeStore, EpisodeStore]:
    """The store at `source`, and what a data set of the format made of it makes again."""
    exported = folder / f"exported{SUFFIXES.get(name, '')}"
    convert(source, exported, to=name)
    assert name == recognized_format(exported).NAME
    convert(exported, folder / "back.zarr")
    return EpisodeStore.open(source), EpisodeStore.open(folder / "back.zarr")


def test_our_own_recordings_come_back(name: str, store: Path, tmp_path: Path):
    there, back = there_and_back(store, name, tmp_path)
    assert there.spec.differences(back.spec) == []
    assert [(r.length, r.instruction, r.success, r.seed) for r in back.episodes] == [
        (r.length, r.instruction, r.success, r.seed) for r in there.episodes
    ]
    for index in range(len(there.episodes)):
        here, again = there.arrays(index), back.arrays(index)
        for tensor in (*there.spec.observations, there.spec.action):
            if tensor.is_image and name in VIDEO:
                assert again[tensor.name].shape == here[tensor.name].shape
            else:
                np.testing.assert_array_equal(again[tensor.name], here[tensor.name])


def test_real_episodes_keep_what_no_policy_reads(name: str, tmp_path: Path):
    convert(EXCERPT, tmp_path / "bridge.zarr", mapping="bridge")
    there, back = there_and_back(tmp_path / "bridge.zarr", name, tmp_path)
    assert there.spec.differences(back.spec) == []
    for index in range(2):
        np.testing.assert_array_equal(back.arrays(index)["action"], there.arrays(index)["action"])
        here, again = there.extras(index), back.extras(index)
        assert set(here) <= set(again)
        for key, values in here.items():
            np.testing.assert_array_equal(again[key], values)
        said = there.metadata(index)["foreign"]
        assert said.items() <= back.metadata(index)["foreign"].items()
        assert back.episodes[index].success is None


def test_vectors_of_another_format_do_not_come_back_in_the_place_of_ours(name: str, tmp_path: Path):
    """A float64 action is kept beside ours for its own format, and must not shadow ours in
    another, whose action has our units."""
    foreign = foreign_episode(0, action=np.full((4, 4), 0.1))
    source = write_data_set(tmp_path / "source", foreign)
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text(
        "cameras: {front: observation/front}\nproprio: observation/state\n"
        "action: {keys: action, scale: [-3, -3, -3, -3]}\nrate_hz: 10\n"
    )
    convert(source, tmp_path / "store.zarr", mapping=str(mapping))
    _, back = there_and_back(tmp_path / "store.zarr", name, tmp_path)
    np.testing.assert_array_equal(back.arrays(0)["action"], np.float32(-3 * 0.1))


def test_a_rate_that_was_given_by_hand_comes_back_with_the_data(name: str, tmp_path: Path):
    """Also from the format that the data came from, which may have no place for it."""
    source = write_data_set(tmp_path / "source", foreign_episode(0))
    first = tmp_path / f"first{SUFFIXES.get(name, '')}"
    convert(source, tmp_path / "store.zarr", rate_hz=7)
    convert(tmp_path / "store.zarr", first, to=name)
    convert(first, tmp_path / "second.zarr", rate_hz=9)
    _, back = there_and_back(tmp_path / "second.zarr", name, tmp_path)
    assert back.spec.control_period_s == pytest.approx(1 / 9)


def test_a_format_is_a_module_with_the_functions_of_the_contract(name: str):
    module = format_named(name)
    assert name == module.NAME
    mapping = module.export_mapping(("front",), ())
    assert mapping.cameras["front"]
    assert len(mapping.proprio) == len(mapping.action) == 1
    assert not mapping.action_frame
    with pytest.raises(ConfigError, match=rf"format={name}s is unknown"):
        format_named(f"{name}s")
