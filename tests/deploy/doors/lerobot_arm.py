"""A robot of LeRobot's own class, driven by our loop; run in the environment of LeRobot.

    python lerobot_arm.py ENDPOINT STEPS FOLDER      (with our src/ on PYTHONPATH)

Prints what it was sent, as JSON.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

# torchvision's compiled operators do not load beside this torch; importing it needs this one.
_operators = torch.library.Library("torchvision", "DEF")
_operators.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from lerobot.robots import Robot, RobotConfig  # noqa: E402 # pyright: ignore[reportMissingImports]

from loopdit.deploy.client import PolicyClient  # noqa: E402
from loopdit.deploy.doors.lerobot import run  # noqa: E402

JOINTS = ("shoulder", "elbow", "gripper")


@RobotConfig.register_subclass("test_arm")  # pyright: ignore[reportUntypedClassDecorator] - theirs
@dataclass
class ArmConfig(RobotConfig):  # pyright: ignore[reportUntypedBaseClass] - theirs
    """Of the arm below."""


class Arm(Robot):  # pyright: ignore[reportUntypedBaseClass] - theirs
    """Three joints and a camera, which see how often it was told to move."""

    config_class = ArmConfig
    name = "test_arm"

    def __init__(self, config: ArmConfig) -> None:
        super().__init__(config)
        self.sent: list[dict[str, float]] = []
        self._connected = False

    @property
    def observation_features(self) -> dict[str, Any]:
        return {**{f"{joint}.pos": float for joint in JOINTS}, "front": (4, 6, 3)}

    @property
    def action_features(self) -> dict[str, Any]:
        return {f"{joint}.pos": float for joint in JOINTS}

    @property
    def is_connected(self) -> bool:
        return self._connected

    def connect(self, calibrate: bool = True) -> None:
        self._connected = True

    @property
    def is_calibrated(self) -> bool:
        return True

    def calibrate(self) -> None:
        raise AssertionError("nothing to calibrate")

    def configure(self) -> None:
        pass

    def get_observation(self) -> dict[str, Any]:
        assert self.is_connected
        step = float(len(self.sent))
        values = (step, -step, 0.5)
        numbers = {f"{joint}.pos": value for joint, value in zip(JOINTS, values, strict=True)}
        return {**numbers, "front": np.full((4, 6, 3), 7, np.uint8)}

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        self.sent.append({name: float(value) for name, value in action.items()})
        return action

    def disconnect(self) -> None:
        self._connected = False


def main() -> None:
    """Run it."""
    endpoint, steps = sys.argv[1], int(sys.argv[2])
    robot = Arm(ArmConfig(id="test", calibration_dir=Path(sys.argv[3])))
    robot.connect()
    with PolicyClient(endpoint, timeout_s=60) as client:
        done = run(robot, client, steps=steps, instruction="lift")
    robot.disconnect()
    print(json.dumps({"sent": robot.sent, "steps": done.steps}))  # noqa: T201


if __name__ == "__main__":
    main()
