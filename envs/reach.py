"""`reach`: touch the green marker."""

# mujoco is a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false, reportUnknownParameterType=false

import mujoco
import numpy as np

from loopdit.envs.arm import Arm
from loopdit.envs.props import add_marker
from loopdit.envs.skills import OPEN, present_yaw, towards
from loopdit.envs.spots import random_spot

MARKER = "goal"
_RADIUS_M = 0.018
_TOUCH_M = 0.02
_NEAR_M = 0.06
# Where the gripper can point straight down, and never so near to its start that a random walk
# finds it.
_LOWEST_M, _HIGHEST_M = 0.04, 0.20
_FARTHEST_M = 0.36
_AWAY_M = 0.10


class ReachTask:
    """One marker in the air, which nothing touches."""

    name = "reach"
    instruction = "touch the green marker"
    time_limit_s = 6.0
    stages = ("near", "touched")

    def build(self, scene: mujoco.MjSpec) -> None:
        """The marker."""
        add_marker(scene, MARKER, mujoco.mjtGeom.mjGEOM_SPHERE, (_RADIUS_M, 0.0, 0.0))

    def place(self, arm: Arm, rng: np.random.Generator) -> None:
        """A random spot at a random height, 10 cm from the end effector at least."""
        start = arm.reference_position
        marker = start
        while float(np.linalg.norm(marker - start)) < _AWAY_M:
            height = rng.uniform(_LOWEST_M, _HIGHEST_M)
            marker = np.array([*random_spot(rng, farthest_m=_FARTHEST_M), height])
        arm.place(MARKER, marker, 0.0)

    def achieved(self, arm: Arm) -> bool:
        """End effector within 2 cm of the marker's centre."""
        return _distance(arm) < _TOUCH_M

    def stage(self, arm: Arm) -> int:
        """Within 6 cm, then there."""
        return 2 if self.achieved(arm) else int(_distance(arm) < _NEAR_M)

    def expert(self, arm: Arm) -> "ReachExpert":
        """The scripted expert."""
        return ReachExpert(arm)


class ReachExpert:
    """Straight to the marker."""

    def __init__(self, arm: Arm) -> None:
        self._arm = arm

    def action(self) -> np.ndarray:
        """The next action (7,) float32, within the environment's limits."""
        arm = self._arm
        return towards(arm, arm.body_position(MARKER), present_yaw(arm), OPEN)


def _distance(arm: Arm) -> float:
    """From the end effector to the marker's centre, m."""
    return float(np.linalg.norm(arm.position - arm.body_position(MARKER)))
