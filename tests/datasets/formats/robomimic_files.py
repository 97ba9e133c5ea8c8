"""Files as robomimic and LIBERO leave them, by h5py alone, and all that is in such a file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

File: Any = h5py.File  # its stubs do not know which of its items is a group
ENV_ARGS = {
    "env_name": "Lift",
    "type": 1,
    "env_version": "1.4.1",
    "env_kwargs": {
        "control_freq": 20,
        "reward_shaping": False,
        "controller_configs": {
            "type": "OSC_POSE",
            "control_delta": True,
            "output_max": [0.05, 0.05, 0.05, 0.5, 0.5, 0.5],
        },
    },
}
# The seventh is longer than the others, and the order of the names is not that of the numbers.
LENGTHS = {"demo_0": 3, "demo_1": 5, "demo_10": 1, "demo_2": 4}


def write_source(path: Path, lengths: Mapping[str, int] = LENGTHS, libero: bool = False) -> None:
    """By h5py alone: what robomimic's dataset_states_to_obs.py, or LIBERO's script, leaves."""
    random = np.random.default_rng(0)
    names = ("agentview_rgb", "eye_in_hand_rgb") if libero else ("agentview_image",)
    vectors = {"ee_pos": 3, "ee_ori": 3, "gripper_states": 2}
    if not libero:
        vectors = {
            "robot0_eef_pos": 3,
            "robot0_eef_quat": 4,
            "robot0_gripper_qpos": 2,
            "object": 10,
        }
    with File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["total"] = sum(lengths.values())
        data.attrs["env_args"] = json.dumps(ENV_ARGS)
        if libero:
            said = {"problem_name": "libero_kitchen", "language_instruction": "turn on the stove"}
            data.attrs["problem_info"] = json.dumps(said)
            data.attrs["macros_image_convention"] = "opengl"
            data.attrs["num_demos"] = len(lengths)
        for name, length in lengths.items():
            demo = data.create_group(name)
            demo.attrs["num_samples"] = length
            demo.attrs["model_file"] = f"<mujoco>{name}</mujoco>" * 3000  # above 64 KiB
            demo.attrs["init_state"] = random.normal(size=6)
            demo["actions"] = random.uniform(-1, 1, (length, 7))
            demo["states"] = random.normal(size=(length, 6))
            demo["rewards"] = np.eye(length)[-1]
            demo["dones"] = np.eye(length, dtype=np.int64)[-1]
            for camera in names:
                images = random.integers(0, 256, (length + 1, 4, 5, 3), dtype=np.uint8)
                demo[f"obs/{camera}"] = images[:-1]
                if not libero:
                    demo[f"next_obs/{camera}"] = images[1:]
            for key, size in vectors.items():
                values = random.normal(size=(length + 1, size))
                demo[f"obs/{key}"] = values[:-1]
                if not libero:
                    demo[f"next_obs/{key}"] = values[1:]
        if not libero:
            file["mask/train"] = np.array(["demo_2", "demo_0"], dtype="S")
            file["mask/valid"] = np.array(["demo_10"], dtype="S")


def content(path: Path) -> dict[str, Any]:
    """Everything in an HDF5 file: values and attributes with their dtypes, by path."""
    found: dict[str, Any] = {}

    def visit(name: str, item: Any) -> None:
        for key, value in item.attrs.items():
            found[f"{name}@{key}"] = (np.asarray(value).dtype.kind, np.asarray(value).tolist())
        if isinstance(item, h5py.Dataset):
            found[name] = (item.dtype, item.shape, item[()].tolist())

    with File(path) as file:
        visit("/", file)
        file.visititems(visit)
    return found
