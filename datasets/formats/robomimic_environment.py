"""What robomimic's `env_args` and keys say of cameras, proprio, action, rate: a suggested mapping.

Labels, units and words are those of our own adapters of robosuite and LIBERO, so that a policy
trained on such a data set says the same of its actions as the environment it is evaluated in.
Quaternions are robosuite's: xyzw. Where the controller is not known the action is left unnamed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from loopdit.datasets.formats.mapping import DataMapping, VectorPart
from loopdit.errors import ConfigError

# By what a key ends in: the labels and units of its elements.
_PROPRIO: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "eef_pos": (("x", "y", "z"), ("m",) * 3),
    "eef_quat": (("qx", "qy", "qz", "qw"), ("1",) * 4),
    "gripper_qpos": (("finger_right", "finger_left"), ("m",) * 2),
}
_LIBERO: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "ee_pos": (("x", "y", "z"), ("m",) * 3),
    "ee_ori": (("rx", "ry", "rz"), ("rad",) * 3),
    "gripper_states": (("finger_right", "finger_left"), ("m",) * 2),
}
_CAMERA_ENDINGS = ("_image", "_rgb")
_ARM = ("dx", "dy", "dz", "drx", "dry", "drz", "gripper")
_SHIFT_OR_TURN = "a shift and a rotation vector of the gripper from its measured pose"
_GRIPPER = "gripper -1 opens, 1 closes"


def environment_mapping(
    where: str,
    arguments: Mapping[str, Any],
    steps: Mapping[str, np.ndarray],
    instruction: Sequence[str],
) -> DataMapping:
    """`arguments` are the parsed env_args, `steps` the first demo's arrays.

    Without cameras ("low_dim") the policy is given the objects' state as well. Raises ConfigError
    where no key is known for proprio.
    """
    kwargs: Mapping[str, Any] = arguments.get("env_kwargs") or {}
    cameras = {_camera(key): (key,) for key in steps if _is_camera(key, steps[key])}
    proprio = _proprio(steps)
    if not proprio:
        raise ConfigError(
            f"{where} has no key that is known for a robot's pose, among: "
            f"{', '.join(sorted(steps))}. Give a mapping that names it."
        )
    if not cameras and "obs/object" in steps:
        proprio = (*proprio, VectorPart(("obs/object",)))
    action, action_frame, convention = _action(steps["actions"].shape[-1], kwargs)
    # A shaped reward rises long before success; LIBERO's files hold 1 at the end whatever was set.
    sparse = "obs/ee_ori" in steps or kwargs.get("reward_shaping") is False
    return DataMapping(
        cameras=cameras,
        proprio=proprio,
        action=(action,),
        action_frame=action_frame,
        convention=convention,
        rate_hz=float(kwargs.get("control_freq") or 0),
        instruction=tuple(instruction),
        success=("rewards",) if sparse and "rewards" in steps else (),
    )


def _is_camera(key: str, value: np.ndarray) -> bool:
    return key.startswith("obs/") and key.endswith(_CAMERA_ENDINGS) and value.ndim == 4


def _camera(key: str) -> str:
    """The adapters' name: robosuite's, which LIBERO shortens for the camera at the hand."""
    name = key.removeprefix("obs/")
    for ending in _CAMERA_ENDINGS:
        name = name.removesuffix(ending)
    return "robot0_eye_in_hand" if name == "eye_in_hand" else name


def _proprio(steps: Mapping[str, np.ndarray]) -> tuple[VectorPart, ...]:
    robots = sorted({key.split("_")[0] for key in steps if key.startswith("obs/robot")})
    named = {f"{robot}_{end}": said for robot in robots for end, said in _PROPRIO.items()}
    named |= {f"obs/{key}": said for key, said in _LIBERO.items()}
    parts: list[VectorPart] = []
    for key, (labels, units) in named.items():
        if key not in steps or steps[key].ndim != 2:
            continue
        if steps[key].shape[1] != len(labels):  # another gripper's fingers
            stem = key.removeprefix("obs/")
            labels = tuple(f"{stem}_{i}" for i in range(steps[key].shape[1]))
            units = ()
        elif len(robots) > 1:
            labels = tuple(f"{key.removeprefix('obs/').split('_')[0]}_{label}" for label in labels)
        parts.append(VectorPart((key,), labels, units))
    return tuple(parts)


def _action(size: int, kwargs: Mapping[str, Any]) -> tuple[VectorPart, str, str]:
    """The action's part, what it is relative to, and "delta", "absolute" or "" for unknown."""
    low, high = (-1.0,) * size, (1.0,) * size
    controller = _controller(kwargs.get("controller_configs"))
    if controller.get("type") != "OSC_POSE" or size != len(_ARM):
        return VectorPart(("actions",), low=low, high=high), "not stated by the data set", ""
    delta = controller.get("control_delta", controller.get("input_type", "delta") == "delta")
    if not delta:
        part = VectorPart(("actions",), low=low, high=high)
        return part, f"the gripper's pose in the base frame; {_GRIPPER}", "absolute"
    scale = _six(controller.get("output_max"))
    if not scale:
        part = VectorPart(("actions",), _ARM, low=low, high=high)
        return part, f"{_SHIFT_OR_TURN}, in the base frame; {_GRIPPER}", "delta"
    units = tuple(f"{s:g} {unit}" for s, unit in zip(scale, ("m",) * 3 + ("rad",) * 3, strict=True))
    part = VectorPart(("actions",), _ARM, (*units, "1"), low=low, high=high)
    return part, f"{_SHIFT_OR_TURN}, in the base frame; {_GRIPPER}", "delta"


def _controller(configs: Any) -> Mapping[str, Any]:
    """robosuite 1.5 has one for each part of the body, 1.4 one, or a list with one for each arm."""
    if isinstance(configs, list) and len(configs) == 1:
        configs = configs[0]
    if isinstance(configs, dict) and "body_parts" in configs:
        arms = [part for part in configs["body_parts"].values() if isinstance(part, dict)]
        configs = next((part for part in arms if part.get("type") == "OSC_POSE"), {})
    return configs if isinstance(configs, dict) else {}


def _six(output_max: Any) -> tuple[float, ...]:
    if isinstance(output_max, list) and len(output_max) == 6:
        return tuple(float(value) for value in output_max)
    return ()
