"""One task of a public suite as an environment of ours: spec, limits, frames, success, state.

`Simulation` is what differs between suites and what a file of this folder provides: the suite's
own environment, stepped as the suite means it. Observation: `images.<camera>` (S, S, 3) uint8
unless `image_size` is 0, and `proprio` (P,) float32. Success is the suite's own judgement of the
step just made; the episode ends with the first one.
"""

# mujoco is a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false, reportUnknownParameterType=false

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import mujoco
import numpy as np

from loopdit.datasets.spec import IMAGE_PREFIX, PROPRIO, PolicySpec, TensorSpec
from loopdit.envs.cameras import CameraRig
from loopdit.errors import ConfigError

SUCCESS: tuple[str, ...] = ("success",)  # the stages of a suite that tells of none before
FREE_CAMERA = "free"  # MuJoCo's own, for a model that has none
_RENDER_SIZE = 256
_SEEDS = 2**31  # what every suite takes: a seed here is the suite's own seed
# MuJoCo resets a state that it cannot go on from, and goes on: only these counters tell.
_BROKEN = ("mjWARN_BADQPOS", "mjWARN_BADQVEL", "mjWARN_BADQACC")


class Expert(Protocol):
    """A scripted policy on privileged state."""

    def action(self) -> np.ndarray:
        """The action (A,) float32 for the present state."""
        ...


@dataclass(frozen=True)
class Outcome:
    """What the suite says of one step.

    `stage` is how many of the simulation's stages the present state has come to, success not
    counted. `over`: it will not go on, without a success (a fall).
    """

    reward: float
    success: bool
    stage: int = 0
    over: bool = False
    broken: bool = False


class Simulation(Protocol):
    """A suite's environment. `model` and `data` are MuJoCo's own and may be others after a reset.

    `cameras` are those of the model that an observation shows. `control_period_s` is computed from
    the model, never assumed. `stages` as in `eval.environment`, success the last.
    """

    instruction: str
    stages: tuple[str, ...]
    control_period_s: float
    max_steps: int
    cameras: tuple[str, ...]
    package: str  # and its version
    proprio_spec: TensorSpec
    action_spec: TensorSpec
    action_frame: str

    @property
    def model(self) -> mujoco.MjModel: ...  # noqa: D102 - MuJoCo's own

    @property
    def data(self) -> mujoco.MjData: ...  # noqa: D102

    def reset(self, seed: int) -> None:
        """Start the episode of `seed`; nothing of the one before may be left."""
        ...

    def step(self, action: np.ndarray) -> Outcome:
        """One control period under `action` (A,) float32, which is within its limits."""
        ...

    def proprio(self) -> np.ndarray:
        """(P,)."""
        ...

    def memory(self) -> np.ndarray:
        """What decides the next step besides MuJoCo's state: goals, a controller's targets."""
        ...

    def expert(self) -> Expert:
        """A fresh expert for this episode. Raises ConfigError where the suite has none."""
        ...

    def idle(self, last: np.ndarray | None) -> np.ndarray:
        """The action (A,) that asks for no motion and keeps the gripper as `last` had it."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


class SuiteEnv:
    """See `eval.environment.Environment`."""

    def __init__(self, simulation: Simulation, image_size: int) -> None:
        self._simulation = simulation
        self._image_size = image_size
        self.policy_spec = _spec(simulation, image_size)
        self.instruction = simulation.instruction
        self.control_period_s = simulation.control_period_s
        self.max_steps = simulation.max_steps
        self.stages = simulation.stages
        self.simulator = f"mujoco {mujoco.__version__}, {simulation.package}"
        self.observing = True
        self._rig: CameraRig | None = None
        self._rig_model: mujoco.MjModel | None = None
        self._steps = 0
        self._reached = 0

    def reset(self, *, seed: int | None = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start the episode that `seed` names: same seed, same states."""
        if seed is None:
            seed = int(np.random.default_rng().integers(_SEEDS))
        if not 0 <= seed < _SEEDS:
            raise ConfigError(f"seed={seed}: the suites take seeds from 0 to {_SEEDS - 1}.")
        self._simulation.reset(seed)
        self._steps = 0
        self._reached = 0
        return self._observation(), self._info(success=False, unstable=False)

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """One control period. An action beyond the limits is cut to them; one that is not A finite
        numbers is a ValueError."""
        spec = self.policy_spec.action
        command = np.asarray(action, np.float32)
        if command.shape != spec.shape or not np.isfinite(command).all():
            raise ValueError(f"an action is {spec.shape[0]} finite numbers; got {action!r}.")
        low, high = np.array(spec.low, np.float32), np.array(spec.high, np.float32)
        outcome = self._simulation.step(np.clip(command, low, high))
        self._steps += 1
        unstable = outcome.broken or _broken(self._simulation.data)
        success = outcome.success and not unstable
        if not unstable:
            stage = len(self.stages) if success else min(outcome.stage, len(self.stages) - 1)
            self._reached = max(self._reached, stage)
        over = self._steps >= self.max_steps or outcome.over or unstable
        info = self._info(success, unstable)
        return self._observation(), outcome.reward, success, over and not success, info

    def expert(self) -> Expert:
        """A scripted expert for the episode that just started."""
        return self._simulation.expert()

    def idle(self, last: np.ndarray | None) -> np.ndarray:
        """The action (A,) that asks for no motion and keeps the gripper as `last` had it."""
        return np.asarray(self._simulation.idle(last), np.float32)

    def state(self) -> np.ndarray:
        """MuJoCo's whole state and what the suite remembers besides."""
        model, data = self._simulation.model, self._simulation.data
        kind = mujoco.mjtState.mjSTATE_INTEGRATION
        physics = np.zeros(mujoco.mj_stateSize(model, kind))
        mujoco.mj_getState(model, data, physics, kind)
        return np.concatenate([physics, np.ravel(self._simulation.memory()).astype(float)])

    def render(self) -> np.ndarray:
        """The first camera, (256, 256, 3) uint8."""
        return self._frame(self._simulation.cameras[0], _RENDER_SIZE)

    def close(self) -> None:
        """Free the renderers and the suite."""
        self._close_rig()
        self._simulation.close()

    def _observation(self) -> dict[str, np.ndarray]:
        proprio = np.asarray(self._simulation.proprio(), np.float32)
        if not (self._image_size and self.observing):
            return {PROPRIO: proprio}
        frames = {c: self._frame(c, self._image_size) for c in self._simulation.cameras}
        return {**{f"{IMAGE_PREFIX}{c}": frame for c, frame in frames.items()}, PROPRIO: proprio}

    def _frame(self, camera: str, size: int) -> np.ndarray:
        if self._rig is None or self._rig_model is not self._simulation.model:
            self._close_rig()
            model = self._simulation.model
            # For the eye alone: without the suites' antialiasing and mirrors a software renderer
            # is 5 to 10 times as quick (Meta-World, 64 pixels: 75 ms a frame, 14 ms without).
            model.vis.quality.offsamples = 0
            model.mat_reflectance[:] = 0
            self._rig_model, self._rig = model, CameraRig(model)
        # MuJoCo's own camera has a number and no name.
        named: Any = -1 if camera == FREE_CAMERA else camera
        return self._rig.frame(self._simulation.data, named, size)

    def _close_rig(self) -> None:
        if self._rig is not None:
            self._rig.close()
            self._rig = self._rig_model = None

    def _info(self, success: bool, unstable: bool) -> dict[str, Any]:
        return {
            "success": success,
            "unstable": unstable,
            "stage": self.stages[self._reached - 1] if self._reached else "start",
            "rejected": False,
        }


def vector(name: str, labels: Sequence[str], units: str | Sequence[str]) -> TensorSpec:
    """A float32 vector; one unit for all of it, or one each."""
    each = (units,) * len(labels) if isinstance(units, str) else tuple(units)
    return TensorSpec(name, (len(labels),), "float32", tuple(labels), each)


def limited(
    labels: Sequence[str],
    units: str | Sequence[str],
    low: Iterable[float],
    high: Iterable[float],
) -> TensorSpec:
    """The spec of an action."""
    each = (units,) * len(labels) if isinstance(units, str) else tuple(units)
    bounds = tuple(float(x) for x in low), tuple(float(x) for x in high)
    return TensorSpec("action", (len(labels),), "float32", tuple(labels), each, *bounds)


def numbered(parts: Mapping[str, int]) -> list[str]:
    """{"height": 1, "joint": 2} -> ["height", "joint0", "joint1"]."""
    return [
        name if count == 1 else f"{name}{i}" for name, count in parts.items() for i in range(count)
    ]


def no_expert(env: str) -> ConfigError:
    """The refusal of a suite that has no scripted expert."""
    return ConfigError(
        f"env={env} has no scripted expert. Take demonstrations from elsewhere, or an env that has "
        "one: the tasks of metaworld and robosuite/lift."
    )


def _spec(simulation: Simulation, image_size: int) -> PolicySpec:
    shape = (image_size, image_size, 3)
    cameras = simulation.cameras if image_size else ()
    frames = tuple(TensorSpec(f"{IMAGE_PREFIX}{c}", shape, "uint8") for c in cameras)
    return PolicySpec(
        observations=(*frames, simulation.proprio_spec),
        action=simulation.action_spec,
        action_frame=simulation.action_frame,
        control_period_s=simulation.control_period_s,
    )


def _broken(data: mujoco.MjData) -> bool:
    counted = any(data.warning[int(getattr(mujoco.mjtWarning, w))].number for w in _BROKEN)
    return counted or not bool(np.isfinite(data.qpos).all())
