"""A simulated robot for `policy-serve mode=control`: one of our environments, stepped in real time.

    python -m loopdit.eval.sim_robot env=lift rate_hz=50 episodes=3

Each action that comes is one control period of the world; what is observed after it goes back. The
world keeps the server's time, because it moves only when it is told to: a server that is late is
late for a robot that waits, and what that costs is `policy-eval`'s to measure.
"""

import os
import signal
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, fields

from loopdit.deploy.robot.control.robot_link import RobotLink
from loopdit.errors import ConfigError, LoopditError
from loopdit.eval.environment import Environment
from loopdit.eval.open_env import DEFAULT_IMAGE_SIZE, open_env
from loopdit.eval.seeds import FIRST_TEST_SEED

_POLL_S = 0.1
# Frames are rendered this often at most, in simulated time: a camera's rate, and what a policy
# looks at is older than a control period anyway.
_FRAMES_HZ = 25.0


@dataclass(frozen=True)
class SimRobotConfig:
    """What `main` takes as name=value."""

    env: str = "lift"
    rate_hz: float = 50.0
    actions: str = "tcp://127.0.0.1:5557"
    observations: str = "tcp://127.0.0.1:5558"
    episodes: int = 0
    seed: int = FIRST_TEST_SEED
    image_size: int = DEFAULT_IMAGE_SIZE
    orphan: str = "stay"
    keys: str = ""
    server_key: str = ""


class SimulatedRobot:
    """One environment and the link that moves it."""

    def __init__(self, env: Environment, link: RobotLink, rate_hz: float) -> None:
        self._env = env
        self._link = link
        self._every = max(1, round(rate_hz / _FRAMES_HZ))

    def play(self, seed: int, stopping: threading.Event) -> str:
        """One episode; how it ended, for people."""
        env, link = self._env, self._link
        link.begin_episode()
        env.observing = True
        observation, _ = env.reset(seed=seed)
        steps = 0
        link.observe(observation, env.instruction)
        while not stopping.is_set():
            commanded = link.action(_POLL_S)
            if commanded is None:  # not begun yet, or stopped: it is seen where it stands
                link.observe(observation, env.instruction)
                continue
            env.observing = (steps + 1) % self._every == 0
            found, _, terminated, truncated, info = env.step(commanded.action)
            steps += 1
            if env.observing:
                observation = found
                link.observe(observation, env.instruction)
            if terminated or truncated:
                outcome = "success" if info["success"] else "failure"
                return f"seed {seed}: {outcome} after {steps * env.control_period_s:.2f} s"
        return f"seed {seed}: stopped after {steps} steps"


def main() -> None:
    """Play episodes until there have been enough, or SIGTERM."""
    try:
        config = _config(sys.argv[1:])
        env = open_env(config.env, config.image_size, config.rate_hz)
        link = RobotLink(
            config.actions, config.observations, keys=config.keys, server_key=config.server_key
        )
    except LoopditError as fault:
        sys.exit(f"sim_robot: error: {fault}")
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda _, __: stopping.set())
    if config.orphan == "exit":
        threading.Thread(target=_exit_with_parent, daemon=True).start()
    with link, suppress(KeyboardInterrupt):
        robot = SimulatedRobot(env, link, config.rate_hz)
        played = 0
        while not stopping.is_set() and not (config.episodes and played >= config.episodes):
            sys.stdout.write(f"{config.env} {robot.play(config.seed + played, stopping)}\n")
            sys.stdout.flush()
            played += 1
    env.close()


def _config(arguments: list[str]) -> SimRobotConfig:
    known = {field.name: field.type for field in fields(SimRobotConfig)}
    chosen: dict[str, object] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals or name not in known:
            raise ConfigError(
                f"{argument!r} is not one of: {', '.join(known)}, each as name=value."
            )
        kind = {"str": str, "int": int, "float": float}[str(getattr(known[name], "__name__", ""))]
        try:
            chosen[name] = kind(value)
        except ValueError:
            raise ConfigError(f"{name}={value} is no {kind.__name__}.") from None
    return SimRobotConfig(**chosen)  # pyright: ignore[reportArgumentType] - checked by name


def _exit_with_parent() -> None:
    """The parent holds the other end of our standard input: it closes however the parent ends."""
    while os.read(0, 4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
