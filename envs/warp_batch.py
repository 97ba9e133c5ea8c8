"""Many worlds of one task at once on a GPU, by MuJoCo Warp: experimental, and float32.

The physics of all worlds is one batch on the device. Everything else is that of `ArmEnv`, one for
each world, on the host: after a control period a world's state is copied into its `ArmEnv`, which
judges, observes and renders as always. So a task needs nothing for it, and the host bounds its
speed: 0.2 ms a world and control step without frames, on a core where all of an environment takes
0.35. Never run on a GPU yet; agreement was tested on Warp's CPU device.

States agree with C MuJoCo to 1e-4 m over ten control steps on Warp's CPU device, not to the bit.
Episodes with a variation are refused: the device has one model for all worlds.
"""

# mujoco and mujoco_warp are without stubs, and warp is not installed everywhere.
# pyright: reportAttributeAccessIssue=false, reportUnknownParameterType=false
# pyright: reportMissingImports=false

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array

from loopdit.envs.arm_env import ArmEnv, checked_action
from loopdit.envs.registry import make_env
from loopdit.envs.variation import NONE
from loopdit.errors import ConfigError

# For each world; MuJoCo Warp reserves them beforehand. These tasks use at most a third.
_MAX_CONTACTS, _MAX_CONSTRAINTS = 64, 256
_MIRRORED = ("qpos", "qvel")


class WarpVectorEnv(VectorEnv[Any, Any, Any]):
    """`envs` worlds of task `name`; `settings` are those of `make_env`, without `variation`.

    Seeds and resets are those of `vector.make_vector_env`: seed + i, and a world that is done
    starts its next episode in the step after. `observing=False` leaves the frames out. `worlds` are
    the environments of the single worlds, to look at. `device` is Warp's name of one, "cuda" or
    "cpu" (which is slower than `vector`, and for tests). Raises ConfigError where Warp or the
    device is missing.
    """

    def __init__(
        self,
        name: str,
        envs: int = 64,
        device: str = "cuda",
        observing: bool = True,
        **settings: Any,
    ) -> None:
        if envs < 1:
            raise ConfigError(f"envs={envs} is not a number of environments. Use 1 or more.")
        if settings.get("variation", NONE) != NONE:
            raise ConfigError(
                f"variation={settings['variation']} needs a model for each world, and a GPU batch "
                f"has one for all. Use variation={NONE}, or the environments of envs/vector.py."
            )
        self._device = _require_device(device)
        self.worlds = [make_env(name, **settings) for _ in range(envs)]
        for world in self.worlds:
            world.observing = observing
        first = self.worlds[0]
        self.num_envs = envs
        self.single_action_space = first.action_space
        self.single_observation_space: gymnasium.Space[Any] = first.observation_space
        if not observing:
            assert isinstance(first.observation_space, gymnasium.spaces.Dict)
            proprio = first.observation_space["proprio"]
            self.single_observation_space = gymnasium.spaces.Dict({"proprio": proprio})
        self.action_space = batch_space(self.single_action_space, envs)
        self.observation_space = batch_space(self.single_observation_space, envs)
        self.metadata = {**first.metadata, "autoreset_mode": AutoresetMode.NEXT_STEP}
        self.render_mode = first.render_mode
        self._over = np.zeros(envs, bool)
        self._physics = _Batch(first, envs, self._device)

    def reset(
        self,
        *,
        seed: int | list[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode in every world."""
        seeds = [None] * self.num_envs if seed is None else seed
        if isinstance(seeds, int):
            seeds = [seeds + i for i in range(self.num_envs)]
        started = [w.reset(seed=s) for w, s in zip(self.worlds, seeds, strict=True)]
        self._physics.upload(self.worlds)
        self._over[:] = False
        return self._joined([o for o, _ in started]), self._infos([i for _, i in started])

    def step(
        self, actions: np.ndarray
    ) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One control period of every world; `actions` (envs, 7)."""
        commands = [checked_action(action) for action in actions]
        self._physics.play(self.worlds, commands)
        outcomes: list[Any] = []
        for world, over in zip(self.worlds, self._over, strict=True):
            if over:
                observation, info = world.reset()
                outcomes.append((observation, 0.0, False, False, info))
            else:
                outcomes.append(world.outcome())
        observations, rewards, terminated, truncated, infos = zip(*outcomes, strict=True)
        if self._over.any():
            self._physics.upload(self.worlds)
        self._over = np.logical_or(terminated, truncated)
        return (
            self._joined(observations),
            np.array(rewards),
            np.array(terminated),
            np.array(truncated),
            self._infos(infos),
        )

    def render(self) -> tuple[np.ndarray, ...]:
        """The front camera of every world."""
        return tuple(world.render() for world in self.worlds)

    def close_extras(self, **kwargs: Any) -> None:
        """Free the renderers."""
        for world in self.worlds:
            world.close()

    def _joined(self, observations: Any) -> Any:
        empty = create_empty_array(self.single_observation_space, n=self.num_envs)
        return concatenate(self.single_observation_space, observations, empty)

    def _infos(self, infos: Any) -> dict[str, Any]:
        joined: dict[str, Any] = {}
        for i, info in enumerate(infos):
            joined = self._add_info(joined, info, i)
        return joined


class _Batch:
    """The physics of all worlds on the device, and the copies to and from their `ArmEnv`s."""

    def __init__(self, world: ArmEnv, count: int, device: str) -> None:
        self._warp, self._mjw = import_module("warp"), import_module("mujoco_warp")
        self._substeps = world.arm.substeps
        model, data = world.arm.model, world.arm.data
        with self._warp.ScopedDevice(device):
            self._model = self._mjw.put_model(model)
            self._data = self._mjw.put_data(
                model, data, nworld=count, nconmax=_MAX_CONTACTS, njmax=_MAX_CONSTRAINTS
            )
            self._mjw.step(self._model, self._data)  # compiles the kernels
            self._graph = None
            if self._warp.get_device().is_cuda:
                with self._warp.ScopedCapture() as capture:
                    self._mjw.step(self._model, self._data)
                self._graph = capture.graph
        self._device = device

    def play(self, worlds: list[ArmEnv], commands: list[np.ndarray]) -> None:
        """One control period, on the device and, as far as `ArmEnv` looks at it, in each world."""
        targets = np.array([w.arm.targets(c) for w, c in zip(worlds, commands, strict=True)])
        for world, last in zip(worlds, targets[:, -1], strict=True):
            world.arm.data.ctrl[:7] = last
        with self._warp.ScopedDevice(self._device):
            for substep in range(self._substeps):
                if substep == self._substeps - 1:
                    self._derive(worlds)
                if substep < targets.shape[1]:
                    self._data.ctrl.assign(targets[:, substep].astype(np.float32))
                if self._graph is None:
                    self._mjw.step(self._model, self._data)
                else:
                    self._warp.capture_launch(self._graph)
            self._download([None if world.arm.unstable else world for world in worlds])

    def _derive(self, worlds: list[ArmEnv]) -> None:
        """Poses and contacts in each world, before the last physics step, where `mj_step` leaves
        them; and its warnings, which the device does not have: a NaN is noticed, and reset."""
        self._download(worlds)
        for world in worlds:
            mujoco.mj_checkPos(world.arm.model, world.arm.data)
            mujoco.mj_checkVel(world.arm.model, world.arm.data)
            mujoco.mj_forward(world.arm.model, world.arm.data)

    def _download(self, worlds: Sequence[ArmEnv | None]) -> None:
        """Copy the device's state into each world, except where there is None."""
        for name in _MIRRORED:
            values = getattr(self._data, name).numpy()
            for i, world in enumerate(worlds):
                if world is not None:
                    getattr(world.arm.data, name)[:] = values[i]

    def upload(self, worlds: list[ArmEnv]) -> None:
        """Copy each world's state to the device: at the start of episodes."""
        for name in (*_MIRRORED, "ctrl", "qacc_warmstart", "mocap_pos", "mocap_quat"):
            there = getattr(self._data, name)
            here = np.array([getattr(world.arm.data, name) for world in worlds], np.float32)
            if here.size:
                there.assign(here)


def _require_device(device: str) -> str:
    """`device`, if Warp is there and has it."""
    try:
        import_module("mujoco_warp")
        warp = import_module("warp")
    except ImportError as error:
        raise ConfigError(
            f"a GPU batch needs MuJoCo Warp ({error}). Install it: pip install 'loopdit[gpu]'."
        ) from error
    if device.startswith("cuda") and not warp.is_cuda_available():
        raise ConfigError(
            f"device={device} is not here: Warp finds no CUDA device. Use envs/vector.py, which "
            "runs on processes, or device=cpu to try this slowly."
        )
    return device
