"""`lift`: pick up the red cube and hold it."""

# mujoco is a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false, reportUnknownParameterType=false

import math

import mujoco
import numpy as np

from loopdit.envs.arm import Arm
from loopdit.envs.props import RED, add_cube
from loopdit.envs.skills import CLOSED, grasp, holds, present_yaw, towards

CUBE = "red"
HALF_EDGE_M = 0.02
_LIFTED_M = 0.06
_GRASP_HEIGHT_M = 0.018
_CARRY_HEIGHT_M = 0.16


class LiftTask:
    """One cube at a random place and heading within reach."""

    name = "lift"
    instruction = "pick up the red cube"
    time_limit_s = 12.0
    stages = ("grasped", "lifted")

    def build(self, scene: mujoco.MjSpec) -> None:
        """The cube."""
        add_cube(scene, CUBE, HALF_EDGE_M, RED)

    def place(self, arm: Arm, rng: np.random.Generator) -> None:
        """Distance 0.20 to 0.38 m, azimuth and heading uniform."""
        distance, azimuth = rng.uniform(0.20, 0.38), rng.uniform(-0.55, 0.55)
        position = [distance * math.cos(azimuth), distance * math.sin(azimuth), HALF_EDGE_M]
        arm.place(CUBE, np.array(position), rng.uniform(-math.pi / 4, math.pi / 4))

    def achieved(self, arm: Arm) -> bool:
        """Cube 6 cm above the table, both finger pads on it."""
        height = arm.body_position(CUBE)[2] - HALF_EDGE_M
        return bool(height > _LIFTED_M) and arm.pads_touching(CUBE) == 2

    def stage(self, arm: Arm) -> int:
        """Held by both pads, then high enough."""
        return 2 if self.achieved(arm) else int(arm.pads_touching(CUBE) == 2)

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
        if holds(arm, CUBE, HALF_EDGE_M):
            lifted = np.array([*arm.reference_position[:2], _CARRY_HEIGHT_M])
            return towards(arm, lifted, present_yaw(arm), CLOSED)
        return grasp(arm, CUBE, _GRASP_HEIGHT_M)
