"""`button`: press the button down and keep it down."""

# mujoco is a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false, reportUnknownParameterType=false

import math

import mujoco
import numpy as np

from loopdit.envs.arm import Arm
from loopdit.envs.props import add_button
from loopdit.envs.skills import CLOSED, towards

HOUSING = "housing"
BUTTON = "button"
PRESSED_M = 0.008
# The command ends 7 mm below where the cap stops, so that shaking does not let it up.
_PRESS_HEIGHT_M = 0.034
_FUNNEL_SLOPE = 4.0
_FUNNEL_FLOOR_M = 0.008
_FUNNEL_HEIGHT_M = 0.07


class ButtonTask:
    """One sprung button at a random place and heading within reach."""

    name = "button"
    instruction = "press the button"
    time_limit_s = 8.0
    stages = ("touched", "pressed")

    def build(self, scene: mujoco.MjSpec) -> None:
        """The button in its housing."""
        add_button(scene, HOUSING, BUTTON)

    def place(self, arm: Arm, rng: np.random.Generator) -> None:
        """Distance 0.20 to 0.38 m, azimuth and heading uniform."""
        distance, azimuth = rng.uniform(0.20, 0.38), rng.uniform(-0.55, 0.55)
        position = [distance * math.cos(azimuth), distance * math.sin(azimuth), 0.0]
        arm.place(HOUSING, np.array(position), rng.uniform(-math.pi / 4, math.pi / 4))

    def achieved(self, arm: Arm) -> bool:
        """The cap 8 of its 12 mm down, under a finger pad."""
        pressed = arm.data.joint(BUTTON).qpos[0] > PRESSED_M
        return bool(pressed) and arm.pads_touching(BUTTON) > 0

    def stage(self, arm: Arm) -> int:
        """Touched by a pad, then pressed."""
        return 2 if self.achieved(arm) else int(arm.pads_touching(BUTTON) > 0)

    def expert(self, arm: Arm) -> "ButtonExpert":
        """The scripted expert."""
        return ButtonExpert(arm)


class ButtonExpert:
    """Close the fingers, over the button, down onto it, and stay."""

    def __init__(self, arm: Arm) -> None:
        self._arm = arm

    def action(self) -> np.ndarray:
        """The next action (7,) float32, within the environment's limits."""
        arm = self._arm
        button = arm.body_position(BUTTON)[:2]
        aside = float(np.linalg.norm(arm.position[:2] - button))
        above = min(_FUNNEL_HEIGHT_M, _FUNNEL_SLOPE * max(0.0, aside - _FUNNEL_FLOOR_M))
        return towards(arm, np.array([*button, _PRESS_HEIGHT_M + above]), 0.0, CLOSED)
