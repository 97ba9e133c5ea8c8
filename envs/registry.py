"""Environments by name. MuJoCo is imported here and not before, after a GL back end is chosen."""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

import gymnasium

from loopdit.envs.gl import choose_renderer
from loopdit.envs.variation import NONE
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
_SMALLEST_FRAME = 16
# Below, an episode has a handful of steps; above, the physics would take ever smaller steps.
_RATES_HZ = (1.0, 1000.0)


def make_env(
    name: str,
    image_size: int = 64,
    rate_hz: float = 0.0,
    renderer: str = "auto",
    variation: str = NONE,
) -> "ArmEnv":
    """The environment `name` with square camera frames of `image_size` pixels.

    `rate_hz` is how many actions it takes a second, 0 the task's own.
    `renderer` is "auto", "gl" or "ray"; see `gl.choose_renderer`. `variation` is what differs
    between episodes beyond the task, as in "lights:0.5+camera"; see `variation.py`. With
    MENAGERIE_ROOT set the arm wears real meshes; see `menagerie.py`. Raises ConfigError for an
    unknown name, renderer or variation, a rate out of range and frames too small to see in,
    RenderingError for "gl" where no OpenGL renders.
    """
    if name not in ENV_NAMES:
        raise ConfigError(f"env={name} is unknown. The environments are: {', '.join(ENV_NAMES)}.")
    if image_size < _SMALLEST_FRAME:
        raise ConfigError(
            f"image_size={image_size} is too small for env={name}, whose objects are seen through "
            f"cameras alone. Use at least {_SMALLEST_FRAME}."
        )
    if rate_hz and not _RATES_HZ[0] <= rate_hz <= _RATES_HZ[1]:
        raise ConfigError(
            f"rate_hz={rate_hz:g} is out of range for env={name}. Use {_RATES_HZ[0]:g} to "
            f"{_RATES_HZ[1]:g}, or 0 for its own."
        )
    choose_renderer(renderer)  # sets the variables that MuJoCo reads when it is imported
    from loopdit.envs.arm_env import CONTROL_PERIOD_S, ArmEnv
    from loopdit.envs.menagerie import menagerie_root

    module, class_name = _TASKS[name]
    task = getattr(import_module(f"loopdit.envs.{module}"), class_name)()
    period_s = 1 / rate_hz if rate_hz else CONTROL_PERIOD_S
    return ArmEnv(
        task,
        image_size=image_size,
        control_period_s=period_s,
        renderer=renderer,
        variation=variation,
        menagerie=menagerie_root(),
    )


def gymnasium_id(name: str) -> str:
    """ "catch-roll" -> "loopdit/CatchRoll-v0"."""
    return f"loopdit/{name.title().replace('-', '')}-v0"


def _maker(name: str) -> Callable[..., "ArmEnv"]:
    def make(render_mode: str | None = "rgb_array", **settings: Any) -> "ArmEnv":
        env = make_env(name, **settings)
        env.render_mode = render_mode
        return env

    return make


# For those who work with gymnasium.make("loopdit.envs.registry:loopdit/Lift-v0"), or without the
# module's name once it is imported.
for _name in ENV_NAMES:
    gymnasium.register(gymnasium_id(_name), _maker(_name))
