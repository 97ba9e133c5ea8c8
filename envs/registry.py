"""Environments by name. MuJoCo is imported here and not before, after a GL back end is chosen."""

from typing import TYPE_CHECKING, Any

import gymnasium

from loopdit.envs.gl import choose_gl
from loopdit.errors import ConfigError

if TYPE_CHECKING:
    from loopdit.envs.arm_env import ArmEnv


ENV_NAMES = ("lift",)


def make_env(name: str, image_size: int = 64) -> "ArmEnv":
    """The environment `name` with square camera frames of `image_size` pixels.

    Raises ConfigError for an unknown name, RenderingError where no OpenGL renders.
    """
    if name not in ENV_NAMES:
        raise ConfigError(f"env={name} is unknown. The environments are: {', '.join(ENV_NAMES)}.")
    choose_gl()
    from loopdit.envs.arm_env import ArmEnv
    from loopdit.envs.lift import LiftTask

    return ArmEnv(LiftTask(), image_size=image_size)


def _lift(**settings: Any) -> "ArmEnv":
    return make_env("lift", **settings)


# For those who work with gymnasium.make("loopdit.envs.registry:loopdit/Lift-v0").
gymnasium.register("loopdit/Lift-v0", _lift)
