"""`catch-roll`: catch the ball that rolls across the table. The one task where latency decides."""

# mujoco is a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false, reportUnknownParameterType=false

import mujoco
import numpy as np

from loopdit.envs.arm import Arm
from loopdit.envs.props import BLUE, add_ball
from loopdit.envs.skills import CLOSED, OPEN, holds, towards

BALL = "ball"
RADIUS_M = 0.018
_LIFTED_M = 0.03
# It enters from beyond the workspace and passes the middle of the table within reach.
_ENTRY_SIDE_M = (0.27, 0.30)
_ENTRY_DISTANCE_M = (0.22, 0.32)
_PASSING_DISTANCE_M = (0.22, 0.34)
_SPEED_M_S = (0.10, 0.22)
_SIDE_REACH_M = 0.24
_GRASP_HEIGHT_M = 0.018
_CARRY_HEIGHT_M = 0.12
# A command is carried out over the next control period and the servos trail by about another one.
_LEAD_S = 0.17
# The fingers come down on either side of the ball, along its way: 17 mm of room on each.
_FUNNEL_SLOPE = 5.0
_FUNNEL_FLOOR_M = 0.008
_FUNNEL_HEIGHT_M = 0.07
_AT_BALL_M = 0.012


class CatchRollTask:
    """A ball that rolls across from one side or the other at 10 to 22 cm/s and never stops."""

    name = "catch-roll"
    instruction = "catch the rolling ball"
    time_limit_s = 7.0
    stages = ("touched", "grasped", "lifted")

    def build(self, scene: mujoco.MjSpec) -> None:
        """The ball."""
        add_ball(scene, BALL, RADIUS_M, BLUE)

    def place(self, arm: Arm, rng: np.random.Generator) -> None:
        """Side, entry, heading and speed; rolling without slip from the start."""
        side = 1.0 if rng.random() < 0.5 else -1.0
        entry = np.array([rng.uniform(*_ENTRY_DISTANCE_M), side * rng.uniform(*_ENTRY_SIDE_M)])
        way = np.array([rng.uniform(*_PASSING_DISTANCE_M), 0.0]) - entry
        x, y = rng.uniform(*_SPEED_M_S) * way / np.linalg.norm(way)
        rolling = np.array([x, y, 0.0, -y / RADIUS_M, x / RADIUS_M, 0.0])
        arm.place(BALL, np.array([*entry, RADIUS_M]), 0.0, rolling)

    def achieved(self, arm: Arm) -> bool:
        """Ball 3 cm above the table, both finger pads on it."""
        height = arm.body_position(BALL)[2] - RADIUS_M
        return bool(height > _LIFTED_M) and arm.pads_touching(BALL) == 2

    def stage(self, arm: Arm) -> int:
        """Touched by a pad, by both, then lifted."""
        return 3 if self.achieved(arm) else arm.pads_touching(BALL)

    def expert(self, arm: Arm) -> "CatchRollExpert":
        """The scripted expert."""
        return CatchRollExpert(arm)


class CatchRollExpert:
    """Fly above the ball at its pace, sink around it, close, lift.

    It knows the ball's velocity; a policy sees that in the motion of the ball, and in how far the
    arm trails its command while it keeps up.
    """

    def __init__(self, arm: Arm) -> None:
        self._arm = arm

    def action(self) -> np.ndarray:
        """The next action (7,) float32, within the environment's limits."""
        arm = self._arm
        if holds(arm, BALL, RADIUS_M):
            lifted = np.array([*arm.reference_position[:2], _CARRY_HEIGHT_M])
            return towards(arm, lifted, 0.0, CLOSED)
        position, ball = arm.position, arm.body_position(BALL)
        ahead = ball[:2] + _LEAD_S * arm.data.joint(BALL).qvel[:2]
        ahead[1] = np.clip(ahead[1], -_SIDE_REACH_M, _SIDE_REACH_M)
        at = np.array([*ball[:2], _GRASP_HEIGHT_M])
        if float(np.linalg.norm(position - at)) < _AT_BALL_M:
            return towards(arm, np.array([*ahead, _GRASP_HEIGHT_M]), 0.0, CLOSED)
        aside = float(np.linalg.norm(position[:2] - ball[:2]))
        above = min(_FUNNEL_HEIGHT_M, _FUNNEL_SLOPE * max(0.0, aside - _FUNNEL_FLOOR_M))
        return towards(arm, np.array([*ahead, _GRASP_HEIGHT_M + above]), 0.0, OPEN)
