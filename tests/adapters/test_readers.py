"""Our exports in the hands of robomimic 0.3.0 and of zarr 2.18, Diffusion Policy's zarr."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.datasets.formats.replay_buffers import push_t, write_buffer
from tests.datasets.formats.robomimic_files import write_source

import loopdit
from loopdit.datasets.formats import diffusion_policy
from loopdit.datasets.formats.convert import convert

ROOT = Path(loopdit.__file__).parents[2]

# robomimic's own loader of training data, on the demos of one filter key.
ROBOMIMIC = """
import json, sys
import robomimic.utils.obs_utils as obs_utils
from robomimic.utils.dataset import SequenceDataset
keys = ["robot0_eef_pos", "agentview_image"]
obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": keys[:1], "rgb": keys[1:]}})
data = SequenceDataset(
    sys.argv[1], keys, ["actions", "rewards", "dones"], seq_length=1, filter_by_attribute="train"
)
items = [data[i] for i in range(len(data))]
found = {"demos": data.demos}
for name in ("actions", "rewards", "dones"):
    found[name] = [item[name].tolist() for item in items]
for name in ("obs", "next_obs"):
    for key in keys:
        found[f"{name}/{key}"] = [item[name][key].tolist() for item in items]
print("FOUND", json.dumps(found))
"""
# What ReplayBuffer's create_from_path, copy_from_path and add_episode do.
ZARR_2 = """
import json, sys
import numpy as np, zarr
group = zarr.open(sys.argv[1], "r")
store = zarr.MemoryStore()
zarr.copy_store(source=group.store, dest=store, source_path="/meta", dest_path="/meta")
copied = zarr.group(store)
data = copied.create_group("data")
for key, value in group["data"].items():
    assert value[: group["meta"]["episode_ends"][-1]].shape[0] == value.shape[0]
    zarr.copy(source=value, dest=data, name=key, chunks=value.chunks, compressor=value.compressor)
found = {key: value[:].tolist() for key, value in data.items()}
for key, value in data.items():
    value.resize((value.shape[0] + 1, *value.shape[1:]))
    value[-1:] = value[:1]
print("FOUND", json.dumps({"ends": copied["meta/episode_ends"][:].tolist(), **found}))
"""


def reader(name: str) -> Path:
    place = Path(os.environ.get("LOOPDIT_SUITES") or ROOT / ".suites") / "readers" / name
    if not place.exists():
        pytest.skip(f"{name} is absent: sh scripts/readers.sh")
    return place


def found(python: Path | str, script: str, path: Path, **environment: str) -> dict[str, Any]:
    done = subprocess.run(
        [str(python), "-c", script, str(path)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.rpartition("FOUND ")[2])


def test_robomimic_s_loader_finds_the_same_in_our_export_as_in_its_source(tmp_path: Path):
    place = reader("robomimic")
    write_source(tmp_path / "lift.hdf5")
    convert(tmp_path / "lift.hdf5", tmp_path / "store")
    convert(tmp_path / "store", tmp_path / "again.hdf5", to="robomimic")
    before, after = (
        found(sys.executable, ROBOMIMIC, tmp_path / name, PYTHONPATH=str(place))
        for name in ("lift.hdf5", "again.hdf5")
    )
    assert before["demos"] == ["demo_0", "demo_2"]
    assert after == before


def test_zarr_2_copies_our_buffer_and_appends_to_it(tmp_path: Path):
    python = reader("zarr2") / "bin" / "python"
    source = push_t()
    write_buffer(tmp_path / "pusht.zarr", source)
    convert(tmp_path / "pusht.zarr", tmp_path / "store", rate_hz=10)
    convert(tmp_path / "store", tmp_path / "again.zarr", to="diffusion_policy")
    after = found(python, ZARR_2, tmp_path / "again.zarr")
    assert after.pop("ends") == [3, 4, 9]
    assert set(after) == set(source)
    for key, values in source.items():
        np.testing.assert_array_equal(np.array(after[key], values.dtype), values)


ZARR_2_WRITER = """
import sys
import numpy as np, zarr
root = zarr.group(zarr.DirectoryStore(sys.argv[1]))
data, meta = root.create_group("data"), root.create_group("meta")
data.array("img", np.arange(288, dtype=np.uint8).reshape(6, 4, 4, 3), chunks=(4, 4, 4, 3))
data.array("action", np.arange(12.0).reshape(6, 2))
meta.array("episode_ends", np.array([2, 6]), compressor=None)
with zarr.ZipStore(sys.argv[1] + ".zip", mode="w") as store:
    zarr.copy_store(root.store, store)
print("FOUND {}")
"""


@pytest.mark.parametrize("suffix", ["", ".zip"])
def test_what_zarr_2_writes_is_read(tmp_path: Path, suffix: str):
    found(reader("zarr2") / "bin" / "python", ZARR_2_WRITER, tmp_path / "theirs.zarr")
    data = diffusion_policy.open(tmp_path / f"theirs.zarr{suffix}")
    assert len(data) == 2
    np.testing.assert_array_equal(
        data.episode(1).steps["img"],
        np.arange(288, dtype=np.uint8).reshape(6, 4, 4, 3)[2:],
    )
