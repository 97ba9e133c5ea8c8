"""`drawer`: pull the drawer open by its handle."""

# mujoco is a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false, reportUnknownParameterType=false

import math

import mujoco
import numpy as np

from loopdit.envs.arm import Arm
from loopdit.envs.props import DRAWER_GAP_M, add_drawer
from loopdit.envs.rotations import matrix_of
from loopdit.envs.skills import CLOSED, towards

CABINET = "cabinet"
DRAWER = "drawer"
HANDLE = "handle"
OPEN_M = 0.10
_PULL_TO_M = 0.125
# The cabinet stands on the left and opens to the right, where the front camera sees its handle.
_CABINET_X_M = (0.24, 0.33)
_CABINET_Y_M = (0.17, 0.21)
_HEADING_RAD = math.pi / 2
_TURNED_RAD = 0.15
# Closed fingers hook behind the handle, their tips below its lower edge.
_HOOK_HEIGHT_M = 0.038
_HOOKED_BELOW_M = 0.058
_GAP_HALF_M = (0.030, 0.024)  # along the pull, across it
_FUNNEL_SLOPE = 5.0
_FUNNEL_FLOOR_M = 0.010
_FUNNEL_HEIGHT_M = 0.070


class DrawerTask:
    """A cabinet at a random place, turned by up to 9 degrees, with one closed drawer."""

    name = "drawer"
    instruction = "open the drawer"
    time_limit_s = 12.0
    stages = ("hooked", "half open", "open")

    def build(self, scene: mujoco.MjSpec) -> None:
        """The cabinet with its drawer."""
        add_drawer(scene, CABINET, DRAWER, HANDLE)

    def place(self, arm: Arm, rng: np.random.Generator) -> None:
        """The cabinet left of the arm, its drawer closed."""
        position = np.array([rng.uniform(*_CABINET_X_M), rng.uniform(*_CABINET_Y_M), 0.0])
        arm.place(CABINET, position, _HEADING_RAD + rng.uniform(-_TURNED_RAD, _TURNED_RAD))

    def achieved(self, arm: Arm) -> bool:
        """The drawer 10 of its 14 cm out."""
        return _opening(arm) > OPEN_M

    def stage(self, arm: Arm) -> int:
        """A finger at the handle, then half way, then open."""
        if self.achieved(arm):
            return 3
        return 2 if _opening(arm) > OPEN_M / 2 else int(arm.pads_touching(HANDLE) > 0)

    def expert(self, arm: Arm) -> "DrawerExpert":
        """The scripted expert."""
        return DrawerExpert(arm)


class DrawerExpert:
    """Over the gap behind the handle, down into it, and pull."""

    def __init__(self, arm: Arm) -> None:
        self._arm = arm

    def action(self) -> np.ndarray:
        """The next action (7,) float32, within the environment's limits."""
        arm = self._arm
        position = arm.position
        remaining = _PULL_TO_M - _opening(arm)
        if remaining < _PULL_TO_M - OPEN_M - 0.01:
            return towards(arm, arm.reference_position, 0.0, CLOSED)
        rotation = matrix_of(arm.body_quaternion(CABINET))
        outwards, across = -rotation[:2, 0], rotation[:2, 1]
        gap = arm.body_position(DRAWER)[:2] + DRAWER_GAP_M * outwards
        off = position[:2] - gap
        along, aside = float(off @ outwards), float(off @ across)
        inside = abs(along) < _GAP_HALF_M[0] and abs(aside) < _GAP_HALF_M[1]
        if inside and position[2] < _HOOKED_BELOW_M:
            target = gap + (along + remaining) * outwards
            return towards(arm, np.array([*target, _HOOK_HEIGHT_M]), 0.0, CLOSED)
        away = float(np.linalg.norm(off))
        above = min(_FUNNEL_HEIGHT_M, _FUNNEL_SLOPE * max(0.0, away - _FUNNEL_FLOOR_M))
        # Low and outside the gap: straight up first, the handle or the front is in the way.
        blocked = position[2] + 0.03 < _HOOK_HEIGHT_M + above
        over = position[:2] if blocked else gap
        return towards(arm, np.array([*over, _HOOK_HEIGHT_M + above]), 0.0, CLOSED)


def _opening(arm: Arm) -> float:
    """How far the drawer is out, m."""
    return float(arm.data.joint(DRAWER).qpos[0])
