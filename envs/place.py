"""`place`: put the red cube in the bowl."""

# mujoco is a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false, reportUnknownParameterType=false

import mujoco
import numpy as np

from loopdit.envs.arm import Arm
from loopdit.envs.props import BOWL_FLOOR_M, RED, add_bowl, add_cube
from loopdit.envs.skills import OPEN, carry, grasp, holds, present_yaw, towards
from loopdit.envs.spots import random_heading, random_spot

CUBE, BOWL = "red", "bowl"
HALF_EDGE_M = 0.02
# Room for open fingers on every side of the cube.
_GAP_M = 0.12
# Farther away, one end of the front camera's view cuts off the rim.
_BOWL_FARTHEST_M = 0.35
# A cube on the bowl's floor, leaning on its wall at most: its centre inside the rim.
_INSIDE_M = 0.045
_INSIDE_HEIGHT_M = 0.045
_GRASP_HEIGHT_M = 0.018
# The bowl is in the way of fingers that come down this near to its centre.
_IN_THE_WAY_M = 0.11
# The fingers let go just above the rim, which they would push against further down.
_RELEASE_HEIGHT_M = BOWL_FLOOR_M + HALF_EDGE_M + 0.018
_AT_RELEASE_M = 0.015
_RETREAT_HEIGHT_M = 0.14


class PlaceTask:
    """One cube and one bowl, at random places within reach."""

    name = "place"
    instruction = "put the red cube in the bowl"
    time_limit_s = 18.0
    stages = ("grasped", "over the bowl", "placed")

    def build(self, scene: mujoco.MjSpec) -> None:
        """The cube and the bowl."""
        add_cube(scene, CUBE, HALF_EDGE_M, RED)
        add_bowl(scene, BOWL)

    def place(self, arm: Arm, rng: np.random.Generator) -> None:
        """Two random spots, 12 cm apart at least."""
        cube = random_spot(rng)
        bowl = random_spot(rng, away_from=cube, gap_m=_GAP_M, farthest_m=_BOWL_FARTHEST_M)
        arm.place(CUBE, np.array([*cube, HALF_EDGE_M]), random_heading(rng))
        arm.place(BOWL, np.array([*bowl, 0.0]), 0.0)

    def achieved(self, arm: Arm) -> bool:
        """Cube in the bowl, let go and at rest."""
        offset = _offset(arm)
        inside = _aside(offset) < _INSIDE_M and bool(offset[2] < _INSIDE_HEIGHT_M)
        return inside and not arm.pads_touching(CUBE) and arm.still(CUBE)

    def stage(self, arm: Arm) -> int:
        """Held by both pads, then held above the bowl, then in it."""
        if self.achieved(arm):
            return 3
        held = arm.pads_touching(CUBE) == 2
        return int(held) + int(held and _aside(_offset(arm)) < _INSIDE_M)

    def expert(self, arm: Arm) -> "PlaceExpert":
        """The scripted expert."""
        return PlaceExpert(arm)


class PlaceExpert:
    """Grasp, carry over the bowl, let go, up: chosen from the present state alone."""

    def __init__(self, arm: Arm) -> None:
        self._arm = arm

    def action(self) -> np.ndarray:
        """The next action (7,) float32, within the environment's limits."""
        arm = self._arm
        offset = _offset(arm)
        over_bowl = _aside(offset) < _INSIDE_M
        if holds(arm, CUBE, HALF_EDGE_M):
            at_release = arm.body_position(BOWL) + np.array([0.0, 0.0, _RELEASE_HEIGHT_M])
            low = offset[2] < _RELEASE_HEIGHT_M + _AT_RELEASE_M
            if low and _aside(offset) < _AT_RELEASE_M:
                return towards(arm, arm.reference_position, present_yaw(arm), OPEN)
            return carry(arm, CUBE, at_release)
        if over_bowl and offset[2] < _RELEASE_HEIGHT_M + 2 * _AT_RELEASE_M:
            up = np.array([*arm.reference_position[:2], _RETREAT_HEIGHT_M])
            return towards(arm, up, present_yaw(arm), OPEN)
        # Higher for a cube that lies on the rim.
        height = max(_GRASP_HEIGHT_M, float(arm.body_position(CUBE)[2]) - 0.002)
        return grasp(arm, CUBE, height, beside=BOWL, within_m=_IN_THE_WAY_M)


def _offset(arm: Arm) -> np.ndarray:
    """From the bowl's base to the cube's centre (3,) m."""
    return arm.body_position(CUBE) - arm.body_position(BOWL)


def _aside(offset: np.ndarray) -> float:
    """The horizontal part of an offset, m."""
    return float(np.linalg.norm(offset[:2]))
