"""A LeRobot robot, driven by a policy of ours: any object with LeRobot's `Robot` interface.

    robot.connect()
    with PolicyClient("tcp://127.0.0.1:5555") as client:
        run(robot, client, steps=600, instruction="pick up the red cube")

The robot's `observation_features` name its numbers (float) and its cameras ((H, W, 3)), its
`action_features` what `send_action` takes. Numbers become `proprio` and the action in the order in
which the features name them, the camera `front` becomes `images.front`. A robot that does not fit
the policy is refused before it moves. Needs nothing of LeRobot.

While a chunk is made, the one before is played on; a chunk begins at the action whose time it is.
"""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from loopdit.datasets.spec import IMAGE_PREFIX, PROPRIO, PolicySpec
from loopdit.deploy.client import ChunkReply, PolicyClient
from loopdit.deploy.clock import Clock, MonotonicClock
from loopdit.deploy.robot.chunk_player import ChunkPlayer
from loopdit.deploy.robot.committed import from_observation, with_committed
from loopdit.deploy.robot.observation_history import ObservationHistory
from loopdit.errors import ConfigError, SpecMismatch

_LONGEST_OF = 10  # delays, the longest of which is expected


class Robot(Protocol):
    """What is used of LeRobot's `Robot`."""

    @property
    def observation_features(self) -> Mapping[str, Any]:
        """float for a number, (H, W, 3) for a camera, by name."""
        ...

    @property
    def action_features(self) -> Mapping[str, Any]:
        """float for each number of an action, by name."""
        ...

    def get_observation(self) -> Mapping[str, Any]:
        """Numbers and uint8 frames, by name."""
        ...

    def send_action(self, action: dict[str, Any]) -> Any:
        """Numbers, by name."""
        ...


@dataclass(frozen=True)
class RobotRun:
    """What happened: control steps, chunks asked for, and periods in which an action was held."""

    steps: int
    chunks: int
    held: int


class RobotMapping:
    """A robot's dictionaries as a policy's tensors. Raises SpecMismatch for two that do not fit."""

    def __init__(self, robot: Robot, spec: PolicySpec) -> None:
        single = spec.recorded
        seen = robot.observation_features
        self._numbers = [name for name, kind in seen.items() if kind is float]
        self._actions = list(robot.action_features)
        self._cameras: dict[str, str] = {}  # ours to the robot's
        found = {
            f"{IMAGE_PREFIX}{name}": (name, tuple(kind))
            for name, kind in seen.items()
            if isinstance(kind, (tuple, list))
        }
        for camera in single.cameras:
            name, shape = found.get(camera.name, ("", ()))
            if shape == camera.shape:
                self._cameras[camera.name] = name
            elif camera.name not in spec.optional or name:
                raise SpecMismatch(
                    f"the policy looks at {camera.name} {camera.shape}; the robot has "
                    f"{', '.join(f'{n} {s}' for n, (_, s) in found.items()) or 'no camera'}. "
                    "Configure its cameras so."
                )
        wanted = single.proprio
        for what, names, tensor in (
            ("observes", self._numbers, wanted),
            ("commands", self._actions, single.action),
        ):
            if (len(names),) != tensor.shape:
                raise SpecMismatch(
                    f"the policy {what} {tensor.shape[0]} numbers ({', '.join(tensor.labels)}), "
                    f"and the robot has {len(names)}: {', '.join(names)}."
                )

    def observation(self, given: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """What the robot said, as the policy is given it."""
        numbers = np.array([given[name] for name in self._numbers], np.float32)
        frames = {ours: np.asarray(given[name]) for ours, name in self._cameras.items()}
        return {**frames, PROPRIO: numbers}

    def action(self, row: np.ndarray) -> dict[str, float]:
        """One action (A,), as the robot takes it."""
        return dict(zip(self._actions, map(float, row), strict=True))


def run(
    robot: Robot,
    client: PolicyClient,
    *,
    steps: int,
    instruction: str = "",
    execute_horizon: int = 0,
    clock: Clock | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> RobotRun:
    """Drive a connected `robot` for so many control periods, asking for a chunk each time that
    `execute_horizon` actions after its observation have been played (0: half of them).

    Raises SpecMismatch or ConfigError before the robot moves, WireError when the server fails: the
    robot then has its last action; what is safe next is the caller's to know.
    """
    execute_horizon = execute_horizon or max(1, client.horizon // 2)
    if not 1 <= execute_horizon <= client.horizon:
        raise ConfigError(
            f"execute_horizon={execute_horizon} must be 1 to {client.horizon}, what a chunk has."
        )
    clock = clock or MonotonicClock()
    loop = _Loop(robot, client, instruction, clock)
    period_s = client.spec.control_period_s
    client.reset()
    with ThreadPoolExecutor(1, thread_name_prefix="policy-request") as thread:
        began_s = clock.now
        for step in range(steps):
            loop.observe()
            if loop.since_asked >= execute_horizon or not loop.player.ready:
                loop.ask(thread)
            loop.take(wait=not loop.player.ready)
            loop.act()
            sleep(max(0.0, began_s + (step + 1) * period_s - clock.now))
    return RobotRun(steps, loop.chunks, loop.player.held)


class _Loop:
    """What is kept between control periods."""

    def __init__(self, robot: Robot, client: PolicyClient, instruction: str, clock: Clock) -> None:
        self._robot, self._client, self._instruction = robot, client, instruction
        self._clock = clock
        self._spec = client.spec
        self._mapping = RobotMapping(robot, self._spec)
        self._history = ObservationHistory(self._spec.history)
        informed = self._spec.committed is not None
        self.player = ChunkPlayer(self._spec.control_period_s, clock, informed)
        self._asked: Future[ChunkReply] | None = None
        self._told = np.empty((0, self._spec.action.shape[0]), np.float32)
        self._observed_s = 0.0
        self._asked_s = 0.0
        self._delays_s: list[float] = []
        self.since_asked = 0
        self.chunks = 0

    def observe(self) -> None:
        self._observed_s = self._clock.now
        self._history.add(self._mapping.observation(self._robot.get_observation()))

    def ask(self, thread: ThreadPoolExecutor) -> None:
        """For a chunk, unless one is under way."""
        if self._asked is not None:
            return
        expected_s = max(self._delays_s[-_LONGEST_OF:], default=0.0)
        told = self.player.committed(expected_s, self._spec.max_committed)
        self._told = told if len(told) else self._told[:0]
        observation = with_committed(self._history.stacked(), self._told, self._spec)
        self._asked_s, self.since_asked = self._observed_s, 0
        self._asked = thread.submit(self._client.infer, observation, instruction=self._instruction)
        self.chunks += 1

    def take(self, wait: bool) -> None:
        """The chunk that was asked for, if it is there or has to be waited for."""
        if self._asked is None or not (wait or self._asked.done()):
            return
        reply, self._asked = self._asked.result(), None
        self._delays_s.append(self._clock.now - self._asked_s)
        actions = from_observation(reply.actions, self._told, self._spec.chunk_from)
        self.player.load(actions, self._asked_s)

    def act(self) -> None:
        self._robot.send_action(self._mapping.action(self.player.action()))
        self.since_asked += 1
