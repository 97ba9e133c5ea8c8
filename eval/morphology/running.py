"""Episodes of Gymnasium's runners: by an expert, perturbed or not, by chance, or by a policy.

T steps, P observed numbers, A motors, H action horizon. A return is the suite's own rewards, summed
over an episode of at most `max_steps` (1,000) steps: comparable with published ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from loopdit.envs.suites.locomotion import Locomotion
from loopdit.eval.morphology.expert import Expert
from loopdit.eval.perturb import Perturbation

# Sets the actions of `run_random` apart from the environment's stream, which has the seed itself.
_RANDOM_STREAM = 2


@dataclass(frozen=True)
class Run:
    """One episode: observations (T, P) and the actions asked for (T, A), float32; the return."""

    observations: np.ndarray
    actions: np.ndarray
    total: float


def run_expert(
    robot: Locomotion,
    expert: Expert,
    seed: int,
    perturbation: Perturbation | None = None,
    steps: int | None = None,
) -> Run:
    """The expert's episode from `seed`. Its actions are recorded as it gives them, and executed as
    the perturbation leaves them: the record has states off the expert's path, and the way back."""
    robot.reset(seed)
    observations: list[np.ndarray] = []
    actions: list[np.ndarray] = []
    total = 0.0
    for step in range(steps or robot.max_steps):
        observation = robot.proprio()
        action = expert.action(observation, step)
        observations.append(observation.astype(np.float32))
        actions.append(action)
        outcome = robot.step(action if perturbation is None else perturbation.apply(action, step))
        total += outcome.reward
        if outcome.over:
            break
    return Run(np.stack(observations), np.stack(actions), total)


def run_random(robot: Locomotion, seed: int, steps: int | None = None) -> float:
    """The return of actions drawn evenly from their limits."""
    rng = np.random.default_rng([_RANDOM_STREAM, seed])
    low, high = np.array(robot.action_spec.low), np.array(robot.action_spec.high)
    robot.reset(seed)
    total = 0.0
    for _ in range(steps or robot.max_steps):
        outcome = robot.step(rng.uniform(low, high).astype(np.float32))
        total += outcome.reward
        if outcome.over:
            break
    return total


class Played(NamedTuple):
    """Episodes side by side, (B,) each: returns, and whether each ran as far as the suite's task
    asks (envs/suites/locomotion)."""

    returns: np.ndarray
    successes: np.ndarray


def run_policy(
    robots: Sequence[Locomotion],
    act: Callable[[np.ndarray], np.ndarray],
    seeds: Sequence[int],
    execute: int = 1,
    steps: int | None = None,
) -> Played:
    """A policy's episodes, one in each robot.

    `act` maps observations (B, P) float32 to chunks (B, H, A), of which `execute` actions are
    played. Robots that have fallen stay in the batch, and earn nothing more.
    """
    for robot, seed in zip(robots, seeds, strict=True):
        robot.reset(seed)
    returns = np.zeros(len(robots))
    successes, over = (np.zeros(len(robots), dtype=bool) for _ in range(2))
    chunks = np.zeros(0)
    for step in range(steps or robots[0].max_steps):
        if step % execute == 0:
            seen = np.stack([robot.proprio() for robot in robots]).astype(np.float32)
            chunks = act(seen)
        for i, robot in enumerate(robots):
            if not over[i]:
                outcome = robot.step(chunks[i, step % execute].astype(np.float32))
                returns[i] += outcome.reward
                successes[i] |= outcome.success
                over[i] = outcome.over
        if over.all():
            break
    return Played(returns, successes)
