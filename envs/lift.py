"""`lift`: pick up the red cube and hold it.

The expert is memoryless: what it does depends on the present state alone, so that a policy which
sees that state can learn it, and so that it recovers from anything: a push, a slip, a grasp that
closed on nothing.
"""

import math

import numpy as np

from loopdit.envs.arm import MAX_ROTATION_RAD, MAX_TRANSLATION_M, Arm
from loopdit.envs.arm_scene import FINGER_TRAVEL_M, cube
from loopdit.envs.rotations import difference, tool_down, yaw_of_body, yaw_of_tool

CUBE = "red"
HALF_EDGE_M = 0.02
_LIFTED_M = 0.06
_GRASP_HEIGHT_M = 0.018
_CARRY_HEIGHT_M = 0.16
# The gripper comes down inside a funnel: this much higher for each metre it is off to the side,
# so the open fingers (17 mm of room on each side) never meet the top of the cube.
_FUNNEL_SLOPE = 6.0
_FUNNEL_FLOOR_M = 0.006
_FUNNEL_HEIGHT_M = 0.09
_AT_GRASP_M = 0.010
# The gripper turns to the cube's heading only near it, where its camera can see that heading.
_TURN_WITHIN_M = 0.05
# Fingers no wider than this around the cube are holding it.
_HOLDING_OPENING = (HALF_EDGE_M + 0.0025) / FINGER_TRAVEL_M


class LiftTask:
    """One cube at a random place and heading within reach."""

    name = "lift"
    instruction = "pick up the red cube"
    time_limit_s = 12.0

    def objects(self) -> str:
        """MJCF of the cube."""
        return cube(CUBE, HALF_EDGE_M, "0.85 0.15 0.12")

    def place(self, arm: Arm, rng: np.random.Generator) -> None:
        """Distance 0.20 to 0.38 m, azimuth and heading uniform."""
        distance, azimuth = rng.uniform(0.20, 0.38), rng.uniform(-0.55, 0.55)
        position = [distance * math.cos(azimuth), distance * math.sin(azimuth), HALF_EDGE_M]
        arm.place(CUBE, np.array(position), rng.uniform(-math.pi / 4, math.pi / 4))

    def achieved(self, arm: Arm) -> bool:
        """Cube 6 cm above the table, both finger pads on it."""
        height = arm.body_position(CUBE)[2] - HALF_EDGE_M
        return bool(height > _LIFTED_M) and arm.pads_touching(CUBE) == 2

    def expert(self, arm: Arm) -> "LiftExpert":
        """The scripted expert."""
        return LiftExpert(arm)


class LiftExpert:
    """Above the cube, down the funnel, close, up: chosen from the present state alone."""

    def __init__(self, arm: Arm) -> None:
        self._arm = arm

    def action(self) -> np.ndarray:
        """The next action (7,) float32, within the environment's limits."""
        arm = self._arm
        position, target = arm.position, arm.body_position(CUBE)
        aside = float(np.linalg.norm(position[:2] - target[:2]))
        grasp = np.array([*target[:2], _GRASP_HEIGHT_M])
        in_hand = float(np.linalg.norm(position - target)) < 0.016
        if in_hand and arm.opening < _HOLDING_OPENING:
            lifted = np.array([*arm.reference_position[:2], _CARRY_HEIGHT_M])
            return self._towards(lifted, self._present_yaw(), gripper=0.0)
        yaw = self._grasp_yaw() if aside < _TURN_WITHIN_M else self._present_yaw()
        if float(np.linalg.norm(position - grasp)) < _AT_GRASP_M:
            return self._towards(grasp, yaw, gripper=0.0)
        above = min(_FUNNEL_HEIGHT_M, _FUNNEL_SLOPE * max(0.0, aside - _FUNNEL_FLOOR_M))
        hover = grasp + np.array([0.0, 0.0, above])
        return self._towards(hover, yaw, gripper=1.0)

    def _present_yaw(self) -> float:
        return yaw_of_tool(self._arm.reference_quaternion)

    def _grasp_yaw(self) -> float:
        """The one of the cube's four headings that is nearest to the gripper's."""
        present = self._present_yaw()
        heading = yaw_of_body(self._arm.body_quaternion(CUBE))
        quarter = math.pi / 2
        return present + (heading - present + quarter / 2) % quarter - quarter / 2

    def _towards(self, position: np.ndarray, yaw: float, gripper: float) -> np.ndarray:
        arm = self._arm
        translation = position - arm.reference_position
        length = float(np.linalg.norm(translation))
        if length > MAX_TRANSLATION_M:
            translation *= MAX_TRANSLATION_M / length
        rotation = difference(tool_down(yaw), arm.reference_quaternion)
        rotation = np.clip(rotation, -MAX_ROTATION_RAD, MAX_ROTATION_RAD)
        return np.array([*translation, *rotation, gripper], dtype=np.float32)
