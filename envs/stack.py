"""`stack`: put the red cube on the blue cube."""

# mujoco is a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false, reportUnknownParameterType=false

import mujoco
import numpy as np

from loopdit.envs.arm import Arm
from loopdit.envs.props import BLUE, RED, add_cube
from loopdit.envs.skills import OPEN, carry, grasp, holds, present_yaw, towards
from loopdit.envs.spots import random_heading, random_spot

TOP, BASE = "red", "blue"
HALF_EDGE_M = 0.02
# Room for open fingers on every side of the cube.
_GAP_M = 0.10
_ASIDE_M = 0.025
_HEIGHT_OFF_M = 0.006
_GRASP_HEIGHT_M = 0.018
# The blue cube is in the way of fingers that come down this near to it.
_IN_THE_WAY_M = 0.09
_RELEASE_ABOVE_M = 0.003
_AT_RELEASE_M = 0.010
_RETREAT_HEIGHT_M = 0.16


class StackTask:
    """Two cubes of the same size, at random places and headings within reach."""

    name = "stack"
    instruction = "stack the red cube on the blue cube"
    time_limit_s = 18.0
    stages = ("grasped", "over the blue cube", "stacked")

    def build(self, scene: mujoco.MjSpec) -> None:
        """The two cubes."""
        add_cube(scene, TOP, HALF_EDGE_M, RED)
        add_cube(scene, BASE, HALF_EDGE_M, BLUE)

    def place(self, arm: Arm, rng: np.random.Generator) -> None:
        """Two random spots, 10 cm apart at least."""
        top = random_spot(rng)
        base = random_spot(rng, away_from=top, gap_m=_GAP_M)
        arm.place(TOP, np.array([*top, HALF_EDGE_M]), random_heading(rng))
        arm.place(BASE, np.array([*base, HALF_EDGE_M]), random_heading(rng))

    def achieved(self, arm: Arm) -> bool:
        """Red cube resting on the blue one, let go and at rest."""
        offset = _offset(arm)
        on_top = _aside(offset) < _ASIDE_M and bool(
            abs(offset[2] - 2 * HALF_EDGE_M) < _HEIGHT_OFF_M
        )
        return on_top and not arm.pads_touching(TOP) and arm.still(TOP)

    def stage(self, arm: Arm) -> int:
        """Held by both pads, then held above the blue cube, then on it."""
        if self.achieved(arm):
            return 3
        held = arm.pads_touching(TOP) == 2
        offset = _offset(arm)
        over = _aside(offset) < _ASIDE_M and bool(offset[2] > HALF_EDGE_M)
        return int(held) + int(held and over)

    def expert(self, arm: Arm) -> "StackExpert":
        """The scripted expert."""
        return StackExpert(arm)


class StackExpert:
    """Grasp, carry over the blue cube, let go, up: chosen from the present state alone."""

    def __init__(self, arm: Arm) -> None:
        self._arm = arm

    def action(self) -> np.ndarray:
        """The next action (7,) float32, within the environment's limits."""
        arm = self._arm
        offset = _offset(arm)
        resting = bool(abs(offset[2] - 2 * HALF_EDGE_M) < _RELEASE_ABOVE_M + _HEIGHT_OFF_M)
        if holds(arm, TOP, HALF_EDGE_M):
            if resting and _aside(offset) < _AT_RELEASE_M:
                return towards(arm, arm.reference_position, present_yaw(arm), OPEN)
            above = np.array([0.0, 0.0, 2 * HALF_EDGE_M + _RELEASE_ABOVE_M])
            return carry(arm, TOP, arm.body_position(BASE) + above)
        if resting and _aside(offset) < _ASIDE_M:
            up = np.array([*arm.reference_position[:2], _RETREAT_HEIGHT_M])
            return towards(arm, up, present_yaw(arm), OPEN)
        height = max(_GRASP_HEIGHT_M, float(arm.body_position(TOP)[2]) - 0.002)
        return grasp(arm, TOP, height, beside=BASE, within_m=_IN_THE_WAY_M)


def _offset(arm: Arm) -> np.ndarray:
    """From the blue cube's centre to the red one's (3,) m."""
    return arm.body_position(TOP) - arm.body_position(BASE)


def _aside(offset: np.ndarray) -> float:
    """The horizontal part of an offset, m."""
    return float(np.linalg.norm(offset[:2]))
