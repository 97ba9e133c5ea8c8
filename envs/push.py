"""`push`: push the red cube along the table to the green marker."""

# mujoco is a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false, reportUnknownParameterType=false

import math

import mujoco
import numpy as np

from loopdit.envs.arm import Arm
from loopdit.envs.props import RED, add_cube, add_marker
from loopdit.envs.skills import OPEN, present_yaw, towards

CUBE = "red"
GOAL = "goal"
HALF_EDGE_M = 0.02
_MARKER_M = (0.03, 0.001)  # radius, half thickness
_AT_GOAL_M = 0.03
_NEAR_GOAL_M = 0.06
# Where the cube and the marker lie, and how far apart.
_DISTANCE_M = (0.22, 0.36)
_AZIMUTH_RAD = 0.5
_APART_M = (0.09, 0.20)
# Fingers 3 cm apart touch a face of the cube in two places, which keeps it from turning away.
_PUSHING = 0.33
_PUSH_HEIGHT_M = 0.020
_TRAVEL_HEIGHT_M = 0.075
# The command runs no further ahead of the gripper: a cube that jams would jump when it comes free.
_LEAD_M = 0.045
# The gripper comes down this far behind the cube: 1 cm of finger, the cube's half diagonal, room.
_BEHIND_M = 0.055
_FUNNEL_SLOPE = 5.0
_FUNNEL_FLOOR_M = 0.010
# Behind the cube, in line with the goal and this low, the gripper pushes.
_LOW_M = 0.040
# Around the cube and wider open than for pushing, it would carry the cube off: open, and up.
_AROUND_M = 0.035
_WIDE = 0.45
_IN_LINE_M = 0.022
_REAR_M, _FRONT_M = 0.085, 0.012
# Nearer than this the direction to the goal says little, and the cube stays where it is.
_TURN_BEYOND_M = 0.04
_STAY_WITHIN_M = 0.015


class PushTask:
    """A cube and a marker 9 to 20 cm away from it, in any direction."""

    name = "push"
    instruction = "push the red cube to the green marker"
    time_limit_s = 15.0
    stages = ("touched", "near", "at the marker")

    def build(self, scene: mujoco.MjSpec) -> None:
        """The cube and the marker."""
        add_cube(scene, CUBE, HALF_EDGE_M, RED)
        add_marker(scene, GOAL, mujoco.mjtGeom.mjGEOM_CYLINDER, [*_MARKER_M, 0.0])

    def place(self, arm: Arm, rng: np.random.Generator) -> None:
        """Both where the gripper can also reach the far side of the cube."""
        cube = _spot(rng)
        goal = _spot(rng)
        while not _APART_M[0] < np.linalg.norm(goal - cube) < _APART_M[1]:
            goal = _spot(rng)
        heading = rng.uniform(-math.pi / 4, math.pi / 4)
        arm.place(CUBE, np.array([*cube, HALF_EDGE_M]), heading)
        arm.place(GOAL, np.array([*goal, _MARKER_M[1]]), 0.0)

    def achieved(self, arm: Arm) -> bool:
        """The cube's centre within 3 cm of the marker's, lying on the table, at rest."""
        lying = arm.body_position(CUBE)[2] < HALF_EDGE_M + 0.005
        return bool(_gap(arm) < _AT_GOAL_M and lying) and arm.still(CUBE)

    def stage(self, arm: Arm) -> int:
        """Touched by a pad, then within 6 cm of the marker, then at it."""
        if self.achieved(arm):
            return 3
        return 2 if _gap(arm) < _NEAR_GOAL_M else int(arm.pads_touching(CUBE) > 0)

    def expert(self, arm: Arm) -> "PushExpert":
        """The scripted expert."""
        return PushExpert(arm)


class PushExpert:
    """Over to the far side of the cube, down behind it, straight to the goal.

    It looks at where the gripper is as seen from the cube, facing the goal. Off the line, it rises
    and comes down behind the cube again.
    """

    def __init__(self, arm: Arm) -> None:
        self._arm = arm

    def action(self) -> np.ndarray:
        """The next action (7,) float32, within the environment's limits."""
        arm = self._arm
        cube = arm.body_position(CUBE)[:2]
        way = arm.body_position(GOAL)[:2] - cube
        gap = float(np.linalg.norm(way))
        if gap < _STAY_WITHIN_M:
            return towards(arm, arm.reference_position, present_yaw(arm), _PUSHING)
        position = arm.position
        around = float(np.linalg.norm(position - arm.body_position(CUBE))) < _AROUND_M
        if around and arm.opening > _WIDE:
            up = np.array([*arm.reference_position[:2], _PUSH_HEIGHT_M + _TRAVEL_HEIGHT_M])
            return towards(arm, up, present_yaw(arm), OPEN)
        ahead = way / gap
        along = float((position[:2] - cube) @ ahead)
        aside = float(np.linalg.norm(position[:2] - cube - along * ahead))
        yaw = _across(arm, ahead) if gap > _TURN_BEYOND_M else present_yaw(arm)
        behind = -_REAR_M < along < -_FRONT_M and aside < _IN_LINE_M
        if behind and position[2] < _LOW_M:
            target = cube + (along + min(gap, _LEAD_M)) * ahead
            return towards(arm, np.array([*target, _PUSH_HEIGHT_M]), yaw, _PUSHING)
        start = cube - _BEHIND_M * ahead
        off = float(np.linalg.norm(position[:2] - start))
        above = min(_TRAVEL_HEIGHT_M, _FUNNEL_SLOPE * max(0.0, off - _FUNNEL_FLOOR_M))
        # Low and beside the cube: straight up first, so as not to sweep it away.
        blocked = position[2] + 0.03 < _PUSH_HEIGHT_M + above
        over = position[:2] if blocked else start
        return towards(arm, np.array([*over, _PUSH_HEIGHT_M + above]), yaw, _PUSHING)


def _spot(rng: np.random.Generator) -> np.ndarray:
    """A place (2,) m on the table."""
    distance, azimuth = rng.uniform(*_DISTANCE_M), rng.uniform(-_AZIMUTH_RAD, _AZIMUTH_RAD)
    return distance * np.array([math.cos(azimuth), math.sin(azimuth)])


def _gap(arm: Arm) -> float:
    """Metres from the cube to the marker, along the table."""
    return float(np.linalg.norm((arm.body_position(CUBE) - arm.body_position(GOAL))[:2]))


def _across(arm: Arm, ahead: np.ndarray) -> float:
    """The heading with the fingers side by side across the way, nearest to the present one."""
    present = present_yaw(arm)
    heading = math.atan2(ahead[1], ahead[0])
    return present + (heading - present + math.pi / 2) % math.pi - math.pi / 2
