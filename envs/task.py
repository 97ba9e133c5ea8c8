"""What makes one task on the arm, and what makes its scripted expert.

A task is one short file: what lies on the table, where an episode puts it, when the goal holds,
how far an attempt has come, and an expert. `lift.py` is the pattern.
"""

# mujoco is a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false, reportUnknownParameterType=false

from typing import Protocol

import mujoco
import numpy as np

from loopdit.envs.arm import Arm

# A task counts as done when its goal has held this long: a touch in passing is not success.
HOLD_S = 0.3


class Expert(Protocol):
    """A scripted policy on privileged state."""

    def action(self) -> np.ndarray:
        """The action (7,) float32 it would take in the environment's present state."""
        ...


class Task(Protocol):
    """One task. Everything random comes from the `rng` of `place`.

    `stages` name what an attempt goes through, in order, the last one being the goal.
    """

    name: str
    instruction: str
    time_limit_s: float
    stages: tuple[str, ...]

    def build(self, scene: mujoco.MjSpec) -> None:
        """Add the task's bodies to the arm's scene, once, before it is compiled."""
        ...

    def place(self, arm: Arm, rng: np.random.Generator) -> None:
        """Put the objects where this episode starts."""
        ...

    def achieved(self, arm: Arm) -> bool:
        """Whether the goal holds in the present state: the one definition of success."""
        ...

    def stage(self, arm: Arm) -> int:
        """How many of `stages` the present state has come to, 0 to len(stages)."""
        ...

    def expert(self, arm: Arm) -> Expert:
        """A fresh expert for the episode that just started."""
        ...
