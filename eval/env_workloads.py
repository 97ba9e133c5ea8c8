"""What `env_bench` times: the same recorded steps, by an environment and by MuJoCo alone.

A workload repeats one episode, from the state after its reset, and counts the control steps. Time
outside of steps (resets, restoring a state, starting a process) is not counted.
"""

# mujoco is a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false, reportUnknownParameterType=false

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import mujoco
import numpy as np

from loopdit.envs.arm import RAMP_SHARE
from loopdit.envs.arm_env import ArmEnv
from loopdit.envs.arm_scene import CAMERAS
from loopdit.envs.vector import make_vector_env
from loopdit.errors import ConfigError

_STATE = mujoco.mjtState.mjSTATE_INTEGRATION
_CHILD_END_S = 20.0


class Workload(Protocol):
    """Something that makes control steps."""

    def rate(self, seconds: float) -> float:
        """Control steps a second over about `seconds` of stepping."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


@dataclass(frozen=True)
class Recording:
    """One expert episode: `actions` (T, 7); `start`, the physics after the reset; `ramps`
    (T, ramp, 7), the actuator targets of the first physics steps of each control step, the last
    of which stays for `rest` more; `end`, the joint positions after it all."""

    seed: int
    actions: np.ndarray
    start: np.ndarray
    ramps: np.ndarray
    rest: int
    end: np.ndarray


def record(env: ArmEnv, seed: int) -> Recording:
    """Play the expert from `seed` to the end of the episode."""
    model, data = env.arm.model, env.arm.data
    substeps = env.arm.substeps
    ramp = max(1, int(RAMP_SHARE * substeps))
    share = np.array([[k / ramp] * 6 + [1.0] for k in range(1, ramp + 1)])  # the gripper jumps
    env.observing = False
    env.reset(seed=seed)
    start = np.zeros(mujoco.mj_stateSize(model, _STATE))
    mujoco.mj_getState(model, data, start, _STATE)
    actions: list[np.ndarray] = []
    ramps: list[np.ndarray] = []
    expert, over = env.expert(), False
    while not over:
        before = data.ctrl.copy()
        actions.append(expert.action())
        _, _, terminated, truncated, _ = env.step(actions[-1])
        ramps.append(before + (data.ctrl - before) * share)
        over = terminated or truncated
    env.observing = True
    end = data.qpos.copy()
    return Recording(seed, np.array(actions), start, np.array(ramps), substeps - ramp, end)


class RawLoop:
    """MuJoCo alone: `mj_step` with the recorded targets, then `frames`, if any, of each camera."""

    def __init__(
        self, model: mujoco.MjModel, recording: Recording, frame_size: int | None = None
    ) -> None:
        self._model, self._recording = model, recording
        self.data = mujoco.MjData(model)
        self._renderer = None
        if frame_size:
            self._renderer = mujoco.Renderer(model, frame_size, frame_size)
            self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0

    def rate(self, seconds: float) -> float:
        """Control steps a second over about `seconds` of stepping."""

        def start() -> None:
            mujoco.mj_setState(self._model, self.data, self._recording.start, _STATE)

        return _rate(start, self.play, len(self._recording.actions), seconds)

    def play(self) -> None:
        """The whole recording."""
        model, data, renderer = self._model, self.data, self._renderer
        step, ctrl, rest = mujoco.mj_step, data.ctrl, self._recording.rest
        for targets in self._recording.ramps:
            for target in targets:
                ctrl[:] = target
                step(model, data)
            if rest:
                step(model, data, nstep=rest)
            if renderer:
                for camera in CAMERAS:
                    renderer.update_scene(data, camera)
                    renderer.render()

    def close(self) -> None:
        """Free the OpenGL context."""
        if self._renderer:
            self._renderer.close()


class EnvLoop:
    """The environment itself, in this process; without frames unless `observing`."""

    def __init__(self, env: ArmEnv, recording: Recording, observing: bool) -> None:
        self._env, self._recording, self._observing = env, recording, observing

    def rate(self, seconds: float) -> float:
        """Control steps a second over about `seconds` of stepping."""
        self._env.observing = self._observing

        def play() -> None:
            for action in self._recording.actions:
                self._env.step(action)

        def start() -> None:
            self._env.reset(seed=self._recording.seed)

        return _rate(start, play, len(self._recording.actions), seconds)

    def close(self) -> None:
        """Nothing: the environment belongs to whoever made it."""


class VectorLoop:
    """`envs` environments in as many processes, with frames; their steps are added up."""

    def __init__(self, name: str, image_size: int, recording: Recording, envs: int) -> None:
        self._envs = make_vector_env(name, envs=envs, image_size=image_size)
        self._recording = recording

    def rate(self, seconds: float) -> float:
        """Control steps a second of all together over about `seconds` of stepping."""
        count = self._envs.num_envs

        def play() -> None:
            for action in self._recording.actions:
                self._envs.step(np.repeat(action[None], count, axis=0))

        def start() -> None:
            seeds: list[int | None] = [self._recording.seed] * count
            self._envs.reset(seed=seeds)

        return _rate(start, play, len(self._recording.actions) * count, seconds)

    def close(self) -> None:
        """End the processes."""
        self._envs.close()


class ChildLoop:
    """Another Python's script that answers each line "SECONDS" by a line "RATE".

    Raises ConfigError when it ends before it says "ready VERSION".
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": ""},
        )
        self.version = self._line_after("ready")

    def rate(self, seconds: float) -> float:
        """What it answers."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        return float(self._line_after("rate"))

    def close(self) -> None:
        """Close its input, which ends it."""
        try:
            self._process.communicate(timeout=_CHILD_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def _line_after(self, word: str) -> str:
        """The rest of the next line that starts with `word`: a suite may print others."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(f"{word} "):
                return line.removeprefix(f"{word} ").strip()
        _, errors = self._process.communicate()
        last = errors.strip().splitlines()[-1:] or ["it said nothing"]
        command = " ".join(Path(part).name for part in map(str, self._process.args))  # pyright: ignore[reportArgumentType] - a list
        raise ConfigError(f"{command} ended before its time: {last[0]}. Build its suite again.")


def _rate(
    start: Callable[[], object], play: Callable[[], object], steps: int, seconds: float
) -> float:
    """Steps a second over whole episodes of `steps`, until `seconds` have been played."""
    played, spent = 0, 0.0
    while spent < seconds:
        start()
        began = time.perf_counter()
        play()
        spent += time.perf_counter() - began
        played += steps
    return played / spent
