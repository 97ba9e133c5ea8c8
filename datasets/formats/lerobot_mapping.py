"""Which LeRobot feature is which camera, proprio or action, by LeRobot's own names of them."""

import re
from collections.abc import Sequence

from loopdit.datasets.formats.lerobot_info import Feature, Info
from loopdit.datasets.formats.mapping import DataMapping, VectorPart
from loopdit.errors import ConfigError

STATE = "observation.state"
ACTION = "action"
SUCCESS = "next.success"
CAMERAS = "observation.images."
_OBSERVATION = "observation."


def suggested_mapping(info: Info) -> DataMapping:
    """Raises ConfigError where no feature is an action, or none is a state."""
    vectors = [
        f for f in info.features.values() if not f.is_camera and f.dtype != "string" and f.shape
    ]
    vectors = [f for f in vectors if len(f.shape) == 1]
    state = _named(vectors, STATE, _OBSERVATION)
    action = _named(vectors, ACTION, f"{ACTION}.")
    for found, what, key in ((state, "proprio", STATE), (action, "action", ACTION)):
        if not found:
            raise ConfigError(
                f"{info.file} names no {key!r} that is a vector, so nothing tells which feature is "
                f"the {what}. It has {', '.join(map(repr, info.features)) or 'none'}; say it with "
                f"mapping=."
            )
    robot = info.raw.get("robot_type") or "the robot"
    labels = [label for feature in action for label in feature.labels]
    # ".pos" is how LeRobot's own drivers name the goal positions of motors.
    positions = bool(labels) and all(label.endswith(".pos") for label in labels)
    return DataMapping(
        cameras=_cameras([f for f in info.features.values() if f.is_camera]),
        proprio=tuple(VectorPart((f.key,), f.labels) for f in state),
        action=tuple(VectorPart((f.key,), f.labels) for f in action),
        action_frame=f"goal positions of the motors of {robot}"
        if positions
        else f"as recorded of {robot}; LeRobot's info.json does not say",
        convention="absolute" if positions else "",
        rate_hz=info.rate_hz,
        instruction=("task",),
        success=(SUCCESS, "success") if SUCCESS in info.features else ("success",),
        seed=("seed",),
    )


def export_mapping(cameras: Sequence[str]) -> DataMapping:
    """Our cameras, proprio and action under LeRobot's names."""
    return DataMapping(
        cameras={camera: (f"{CAMERAS}{camera}",) for camera in cameras},
        proprio=(VectorPart((STATE,)),),
        action=(VectorPart((ACTION,)),),
        action_frame="",
        instruction=("task",),
        success=("success",),
        seed=("seed",),
    )


def _named(vectors: Sequence[Feature], name: str, prefix: str) -> list[Feature]:
    """The feature of that name, else all whose names begin so."""
    exact = [feature for feature in vectors if feature.key == name]
    return exact or [feature for feature in vectors if feature.key.startswith(prefix)]


def _cameras(features: Sequence[Feature]) -> dict[str, tuple[str, ...]]:
    """Each camera under what is left of its name, letters, digits, '_', '-' and '.' only."""
    cameras: dict[str, tuple[str, ...]] = {}
    for feature in features:
        name = feature.key.removeprefix(CAMERAS).removeprefix(_OBSERVATION)
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", name).lstrip("_.-") or "camera"
        while name in cameras:
            name += "_"
        cameras[name] = (feature.key,)
    return cameras
