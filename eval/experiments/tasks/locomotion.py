"""Recordings of Gymnasium's runners by the experts that lie in eval/morphology, and closed loops.

The experts' actions are perturbed as demonstrations are, and recorded as the expert asked for them.
Recordings are the same for all seeds of an experiment, as a data set would be: what a seed changes
is the training. P observed numbers, A motors, M steps in all.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from loopdit.command import option
from loopdit.envs.suites.locomotion import Locomotion
from loopdit.errors import ConfigError
from loopdit.eval.morphology.demonstrations import demonstrate
from loopdit.eval.morphology.expert import expert_file, load_expert
from loopdit.eval.morphology.recipes import RECIPES
from loopdit.eval.morphology.running import Played, Run, run_policy
from loopdit.eval.perturb import NoiseConfig

RUNNERS = tuple(sorted(RECIPES))
_CLOSED_LOOP = 3_000_000  # demonstrations begin at seed 0


@dataclass(frozen=True)
class RecordingConfig:
    """How much is recorded of each runner."""

    demonstrations: int = option(20, "episodes of each expert to learn from")
    held_out: int = option(3, "episodes of each expert to measure on")
    episode_steps: int = option(1000, "steps of an episode, at most")

    def __post_init__(self) -> None:
        for name in ("demonstrations", "held_out", "episode_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"recording.{name}={getattr(self, name)} must be at least 1.")


@dataclass(frozen=True)
class Recorded:
    """Episodes of one runner's expert: to learn from, and to measure on."""

    training: tuple[Run, ...]
    held_out: tuple[Run, ...]


def require_runners(names: Sequence[str]) -> None:
    """Raise ConfigError for a runner that has no expert."""
    for name in names:
        if name not in RUNNERS:
            raise ConfigError(f"no runner is named {name!r}. There are: {', '.join(RUNNERS)}.")


@lru_cache(maxsize=8)
def recorded(task: str, config: RecordingConfig) -> Recorded:
    """Of one runner; kept, as all runs of an experiment use the same."""
    robot = Locomotion(task)
    seeds = range(config.demonstrations + config.held_out)
    expert = load_expert(expert_file(task))
    runs = demonstrate(robot, expert, seeds, NoiseConfig(), config.episode_steps)
    robot.close()
    return Recorded(tuple(runs[: config.demonstrations]), tuple(runs[config.demonstrations :]))


def closed_loop(
    task: str,
    act: Callable[[np.ndarray], np.ndarray],
    episodes: int,
    execute: int,
    steps: int,
) -> Played:
    """`run_policy` on one runner, from starts that no demonstration has."""
    robots = [Locomotion(task) for _ in range(episodes)]
    seeds = range(_CLOSED_LOOP, _CLOSED_LOOP + episodes)
    played = run_policy(robots, act, seeds, execute, steps)
    for robot in robots:
        robot.close()
    return played


def joined(runs: Sequence[Run], steps_ahead: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Every step of every episode, with what came so many steps later; the end of an episode is
    repeated. Observations (M, len(steps_ahead), P) and actions (M, len(steps_ahead), A)."""
    observations, actions = [], []
    for run in runs:
        length = len(run.actions)
        at = np.arange(length)[:, None] + np.asarray(steps_ahead)
        at = np.minimum(at, length - 1)
        observations.append(run.observations[at])
        actions.append(run.actions[at])
    return np.concatenate(observations), np.concatenate(actions)
