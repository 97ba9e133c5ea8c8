"""Which suites there are, what they need, and how to make an environment of one in this process."""

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from loopdit.envs.gl import choose_gl, choose_renderer
from loopdit.errors import ConfigError

if TYPE_CHECKING:
    from loopdit.envs.suites.suite_env import SuiteEnv


@dataclass(frozen=True)
class Suite:
    """A suite as it is named before the first slash of `env=`.

    `module` is ours, in this folder, and has `tasks()` and `make(task, image_size)`. `imports` are
    the top-level modules that it needs. `folder` is its environment below `.suites/`.
    """

    package: str
    imports: tuple[str, ...]
    folder: str
    module: str
    example: str

    def importable(self) -> bool:
        """Whether this Python has what the suite needs."""
        return all(find_spec(name) is not None for name in self.imports)


SUITES = {
    "metaworld": Suite("Meta-World", ("metaworld",), "metaworld", "metaworld", "reach-v3"),
    "robosuite": Suite("robosuite", ("robosuite",), "robosuite", "robosuite", "lift"),
    "aloha": Suite("gym-aloha", ("gym_aloha",), "aloha", "aloha", "transfer-cube"),
    # Gymnasium's MuJoCo tasks import imageio, which Gymnasium itself does not bring.
    "gymnasium": Suite(
        "Gymnasium", ("gymnasium", "mujoco", "imageio"), "gymnasium", "locomotion", "Ant-v5"
    ),
    "robotics": Suite(
        "gymnasium-robotics", ("gymnasium_robotics",), "robotics", "robotics", "FetchReach-v4"
    ),
    "dm_control": Suite(
        "dm-control", ("dm_control",), "dm_control", "dm_control", "cartpole-swingup"
    ),
    "dm_manipulation": Suite(
        "dm-control", ("dm_control",), "dm_control", "dm_manipulation", "reach_site_features"
    ),
    "libero": Suite("LIBERO", ("libero",), "libero", "libero", "libero_goal/turn_on_the_stove"),
}


def suite_of(name: str) -> Suite | None:
    """The suite of the environment `name`, None for a name of no suite."""
    prefix, slash, _ = name.partition("/")
    return SUITES.get(prefix) if slash else None


def make_here(name: str, image_size: int) -> "SuiteEnv":
    """The environment `name` in this process, which has its suite.

    Raises ConfigError for a task that the suite does not have, RenderingError where frames are
    wanted and no OpenGL renders.
    """
    suite = suite_of(name)
    if suite is None:
        raise ConfigError(f"env={name} is of no suite known here: {', '.join(SUITES)}.")
    if image_size:
        choose_gl()
    else:  # quietly without, where there is none: MuJoCo would fail to import
        choose_renderer("ray")
    task = name.partition("/")[2]
    module = import_module(f"loopdit.envs.suites.{suite.module}")
    tasks: tuple[str, ...] = module.tasks()
    if task not in tasks:
        shown = ", ".join(tasks[:60])
        raise ConfigError(f"env={name}: {suite.package} has no task {task!r}. It has: {shown}.")
    return module.make(task, image_size)
