"""Environments by name. MuJoCo is imported here and not before, after a GL back end is chosen."""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

import gymnasium

from loopdit.envs.gl import choose_gl
from loopdit.errors import ConfigError

if TYPE_CHECKING:
    from loopdit.envs.arm_env import ArmEnv

# Name, module in this folder, class.
_TASKS = {
    "reach": ("reach", "ReachTask"),
    "lift": ("lift", "LiftTask"),
    "place": ("place", "PlaceTask"),
    "stack": ("stack", "StackTask"),
    "push": ("push", "PushTask"),
    "drawer": ("drawer", "DrawerTask"),
    "button": ("button", "ButtonTask"),
    "catch-roll": ("catch_roll", "CatchRollTask"),
}
ENV_NAMES = tuple(_TASKS)


def make_env(name: str, image_size: int = 64, rate_hz: float = 0.0) -> "ArmEnv":
    """The environment `name` with square camera frames of `image_size` pixels.

    `rate_hz` is how many actions it takes a second, 0 the task's own.
    Raises ConfigError for an unknown name, RenderingError where no OpenGL renders.
    """
    if name not in ENV_NAMES:
        raise ConfigError(f"env={name} is unknown. The environments are: {', '.join(ENV_NAMES)}.")
    choose_gl()
    from loopdit.envs.arm_env import CONTROL_PERIOD_S, ArmEnv

    module, class_name = _TASKS[name]
    task = getattr(import_module(f"loopdit.envs.{module}"), class_name)()
    period_s = 1 / rate_hz if rate_hz else CONTROL_PERIOD_S
    return ArmEnv(task, image_size=image_size, control_period_s=period_s)


def gymnasium_id(name: str) -> str:
    """ "catch-roll" -> "loopdit/CatchRoll-v0"."""
    return f"loopdit/{name.title().replace('-', '')}-v0"


def _maker(name: str) -> Callable[..., "ArmEnv"]:
    return lambda **settings: make_env(name, **settings)


# For those who work with gymnasium.make("loopdit.envs.registry:loopdit/Lift-v0").
for _name in ENV_NAMES:
    gymnasium.register(gymnasium_id(_name), _maker(_name))
