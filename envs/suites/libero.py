"""LIBERO: language-named tasks of a Panda arm on robosuite 1.4, 7-D control at 20 Hz.

Action (7,), -1 to 1: a shift and a rotation of the gripper, and the gripper, -1 opens. Observation
`proprio` (9,): the gripper's position, its quaternion (xyzw, as the suite gives it) and its two
fingers; without cameras the suite's object state too. Success is the suite's own.

The package has no meshes and scenes, and would fetch them from the network: LOOPDIT_LIBERO_ASSETS
names the folder `assets` of a LIBERO checkout instead. Starts are drawn from the seed, not taken
from the suite's recorded ones: those are pickles, which loopdit does not read.
"""

# A suite's package is untyped to us.
# pyright: reportUnknownParameterType=false

import json
import os
import tempfile
from functools import cache
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from loopdit.envs.suites.suite_env import (
    SUCCESS,
    Outcome,
    SuiteEnv,
    limited,
    no_expert,
    numbered,
    vector,
)
from loopdit.errors import ConfigError

ASSETS = "LOOPDIT_LIBERO_ASSETS"
_CONTROL_HZ = 20
# How long the suites' episodes are in published evaluations.
_MAX_STEPS = {
    "libero_spatial": 220,
    "libero_object": 280,
    "libero_goal": 300,
    "libero_10": 520,
    "libero_90": 400,
}
_FEATURES = ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos")
_LABELS = ("x", "y", "z", "qx", "qy", "qz", "qw", "finger_right", "finger_left")


def tasks() -> tuple[str, ...]:
    """Names as libero_goal/turn_on_the_stove."""
    files = (_package() / "bddl_files").glob("*/*.bddl")
    return tuple(sorted(f"{path.parent.name}/{path.stem}" for path in files))


def make(task: str, image_size: int) -> SuiteEnv:
    """The task `task`. Raises ConfigError where the suite's assets are missing."""
    return SuiteEnv(Libero(task, full_state=image_size == 0), image_size)


class Libero:
    """See `suite_env.Simulation`."""

    stages = SUCCESS
    cameras: tuple[str, ...] = ("agentview", "robot0_eye_in_hand")
    action_frame = (
        "a shift and a rotation vector of the gripper from its measured pose, in the base frame, "
        "1 is 50 mm or 0.5 rad; gripper -1 opens, 1 closes"
    )

    def __init__(self, task: str, full_state: bool) -> None:
        _import_with(_assets(task))
        wrapper: Any = import_module("libero.libero.envs.env_wrapper")
        made: Any = wrapper.ControlEnv(
            str(_package() / "bddl_files" / f"{task}.bddl"),
            control_freq=_CONTROL_HZ,
            use_camera_obs=False,
            has_offscreen_renderer=False,
            ignore_done=True,
        )
        self._env = made.env
        self._name = f"libero/{task}"
        self.instruction = str(made.language_instruction)
        self.max_steps = _MAX_STEPS.get(task.partition("/")[0], 400)
        self.package = f"hf-libero {version('hf-libero')}"
        self.control_period_s = float(self._env.control_timestep)
        self._full_state = full_state
        self._observation: Any = self._env.reset()
        units = ("m",) * 3 + ("1",) * 4 + ("m",) * 2
        objects = self.proprio().size - len(_LABELS)
        labels = (*_LABELS, *(numbered({"object": objects}) if objects else ()))
        self.proprio_spec = vector("proprio", labels, (*units, *("m or 1",) * objects))
        self.action_spec = limited(
            ("dx", "dy", "dz", "drx", "dry", "drz", "gripper"),
            ("0.05 m",) * 3 + ("0.5 rad",) * 3 + ("1",),
            (-1,) * 7,
            (1,) * 7,
        )

    @property
    def model(self) -> Any:
        """MuJoCo's, inside robosuite's wrapper; compiled anew at every reset."""
        return self._env.sim.model._model

    @property
    def data(self) -> Any:
        """MuJoCo's, inside robosuite's wrapper."""
        return self._env.sim.data._data

    def reset(self, seed: int) -> None:
        """The objects where `seed` puts them: the suite draws from numpy's global generator."""
        np.random.seed(seed)
        self._observation = self._env.reset()
        self.model.geom_group[self.model.geom_group == 0] = 5  # its collision shapes

    def step(self, action: np.ndarray) -> Outcome:
        """One control period."""
        self._observation, reward, _, _ = self._env.step(action)
        return Outcome(float(reward), success=bool(self._env._check_success()))

    def proprio(self) -> np.ndarray:
        """(9,), or longer with the objects."""
        names = [*_FEATURES, *(["object-state"] if self._full_state else [])]
        return np.concatenate([np.ravel(self._observation[name]) for name in names])

    def memory(self) -> np.ndarray:
        """How far the gripper's command has moved towards the last one."""
        return np.ravel(self._env.robots[0].gripper.current_action)

    def expert(self) -> Any:
        """There is none."""
        raise no_expert(self._name)

    def idle(self, last: np.ndarray | None) -> np.ndarray:
        """No motion; the gripper as it was, open at first."""
        return np.array([0, 0, 0, 0, 0, 0, -1 if last is None else last[6]])

    def close(self) -> None:
        """Free the suite's environment."""
        self._env.close()


def _package() -> Path:
    """The folder of the package `libero.libero`, which is not imported to find it."""
    found = find_spec("libero")
    assert found is not None
    assert found.submodule_search_locations
    return Path(next(iter(found.submodule_search_locations))) / "libero"


def _assets(task: str) -> Path:
    given = os.environ.get(ASSETS)
    folder = Path(given) if given else _package() / "assets"
    if not (folder / "scenes").is_dir():
        raise ConfigError(
            f"env=libero/{task}: LIBERO's meshes and scenes are not at {folder} (there is no "
            f"scenes/ in it); its package comes without them. Set {ASSETS} to the folder "
            "libero/libero/assets of a LIBERO checkout, as an absolute path."
        )
    return folder


@cache
def _import_with(assets: Path) -> "tempfile.TemporaryDirectory[str]":
    """Import the suite with its folders: without a configuration it asks on standard input.

    It reads the configuration again whenever it builds a scene: it is kept as long as this process.
    """
    package = _package()
    folders = {
        "benchmark_root": package,
        "bddl_files": package / "bddl_files",
        "init_states": package / "init_files",
        "datasets": package / "datasets",
        "assets": assets,
    }
    kept = tempfile.TemporaryDirectory(prefix="loopdit-libero-")
    text = json.dumps({name: str(path) for name, path in folders.items()})
    Path(kept.name, "config.yaml").write_text(text)  # JSON is YAML
    os.environ["LIBERO_CONFIG_PATH"] = kept.name
    suite: Any = import_module("libero.libero")
    suite._assets_path_cache = str(assets)
    return kept
