"""What scripted experts share: moves of the commanded pose, and a grasp from above.

Experts are memoryless: what they do depends on the present state alone, so that a policy which
sees that state can learn it, and so that they recover from anything: a push, a slip, a grasp that
closed on nothing.
"""

import math

import numpy as np

from loopdit.envs.arm import MAX_ROTATION_RAD, MAX_TRANSLATION_M, Arm
from loopdit.envs.arm_scene import FINGER_TRAVEL_M
from loopdit.envs.rotations import difference, tool_down, yaw_of_body, yaw_of_tool

OPEN, CLOSED = 1.0, 0.0
# The gripper comes down inside a funnel: this much higher for each metre it is off to the side,
# so the open fingers (17 mm of room on each side of a cube) never meet its top.
_FUNNEL_SLOPE = 6.0
_FUNNEL_FLOOR_M = 0.006
_FUNNEL_HEIGHT_M = 0.09
_AT_GRASP_M = 0.010
_IN_HAND_M = 0.016
# The gripper turns to the object's heading only near it, where its camera can see that heading.
_TURN_WITHIN_M = 0.05
# The sine of the angle that the fingers' line keeps from what lies beside the object. Beyond 45
# degrees, so that a heading which was turned to is not turned away from again.
_IN_THE_WAY = 0.82
# Fingers that close further off than this may jam the object on its edges.
_TURNED_RAD = 0.5
# Fingers no wider than this much beyond the object, on each side, are holding it.
_HOLDING_SLACK_M = 0.0025
# What is carried stays below a ceiling that drops to the goal like a funnel, and crosses the table
# only once it is near that ceiling, so it never runs into what it is brought to.
_CARRY_ABOVE_M = 0.08
_CARRY_SLOPE = 3.0
_CARRY_FLOOR_M = 0.008
_CARRY_CLIMB_M = 0.04


def towards(arm: Arm, position: np.ndarray, yaw: float, gripper: float) -> np.ndarray:
    """The action (7,) float32, within limits, that brings the command towards a pose.

    position (3,) m, fingers down and turned by `yaw` rad, opening `gripper` 0 to 1.
    """
    translation = position - arm.reference_position
    length = float(np.linalg.norm(translation))
    if length > MAX_TRANSLATION_M:
        translation *= MAX_TRANSLATION_M / length
    rotation = difference(tool_down(yaw), arm.reference_quaternion)
    rotation = np.clip(rotation, -MAX_ROTATION_RAD, MAX_ROTATION_RAD)
    return np.array([*translation, *rotation, gripper], dtype=np.float32)


def present_yaw(arm: Arm) -> float:
    """The commanded heading of the gripper, rad."""
    return yaw_of_tool(arm.reference_quaternion)


def grasp_yaw(arm: Arm, cube: str, beside: str = "", within_m: float = 0.0) -> float:
    """The one of a cube's four headings that is nearest to the gripper's, rad.

    Unless the body `beside` is `within_m` of the cube and in the way of the fingers there.
    """
    present = present_yaw(arm)
    quarter = math.pi / 2
    turn = yaw_of_body(arm.body_quaternion(cube)) - present
    turn = (turn + quarter / 2) % quarter - quarter / 2
    if beside:
        aside = (arm.body_position(beside) - arm.body_position(cube))[:2]
        # The fingers lie along the gripper's y axis.
        along = abs(math.sin(math.atan2(aside[1], aside[0]) - present - turn))
        if float(np.linalg.norm(aside)) < within_m and along > _IN_THE_WAY:
            turn -= math.copysign(quarter, turn)
    return present + turn


def holds(arm: Arm, cube: str, half_edge_m: float) -> bool:
    """Whether the fingers are around the cube and closed on it."""
    near = float(np.linalg.norm(arm.position - arm.body_position(cube))) < _IN_HAND_M
    return near and arm.opening < (half_edge_m + _HOLDING_SLACK_M) / FINGER_TRAVEL_M


def grasp(
    arm: Arm, cube: str, grasp_height_m: float, beside: str = "", within_m: float = 0.0
) -> np.ndarray:
    """The next action (7,) of a grasp from above: over the cube, down the funnel, close.

    `beside` and `within_m` as in `grasp_yaw`.
    """
    position, target = arm.position, arm.body_position(cube)
    aside = float(np.linalg.norm(position[:2] - target[:2]))
    at = np.array([*target[:2], grasp_height_m])
    near = aside < _TURN_WITHIN_M
    yaw = grasp_yaw(arm, cube, beside, within_m) if near else present_yaw(arm)
    if float(np.linalg.norm(position - at)) < _AT_GRASP_M:
        turned = abs(yaw - present_yaw(arm)) < _TURNED_RAD
        return towards(arm, at, yaw, CLOSED if turned else OPEN)
    above = min(_FUNNEL_HEIGHT_M, _FUNNEL_SLOPE * max(0.0, aside - _FUNNEL_FLOOR_M))
    return towards(arm, at + np.array([0.0, 0.0, above]), yaw, OPEN)


def carry(arm: Arm, body: str, goal: np.ndarray) -> np.ndarray:
    """The next action (7,) that brings the held `body` to `goal` (3,) m from above: up, over, down.

    It is the body that comes to the goal, however it lies in the hand.
    """
    offset = goal - arm.body_position(body)
    aside = float(np.linalg.norm(offset[:2]))
    above = min(_CARRY_ABOVE_M, _CARRY_SLOPE * max(0.0, aside - _CARRY_FLOOR_M))
    climb = float(offset[2]) + above
    across = float(np.clip(1.5 - climb / _CARRY_CLIMB_M, 0.0, 1.0))
    move = np.array([*(across * offset[:2]), climb])
    return towards(arm, arm.position + move, present_yaw(arm), CLOSED)
