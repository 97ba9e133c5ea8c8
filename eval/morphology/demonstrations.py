"""Demonstrations of the experts as training windows, and the body each of them is of.

M windows, P observed numbers, H action horizon, A motors. A window is what is observed at one step
and the chunk that the expert asks for from there; `valid` (M, H) marks actions inside the episode,
the rest repeats the last one. All in memory: a thousand steps of a runner are 100 kB.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from loopdit.envs.morphology.graph import body_graph
from loopdit.envs.morphology.observed import observed_slots
from loopdit.envs.suites.locomotion import Locomotion
from loopdit.eval.demonstration import perturbation_of
from loopdit.eval.morphology.expert import Expert
from loopdit.eval.morphology.running import Run, run_expert
from loopdit.eval.perturb import NoiseConfig
from loopdit.policy.morphology.embodiment import Embodiment, tensors


@dataclass(frozen=True)
class Windows:
    """observations (M, P), chunks (M, H, A), valid (M, H); float32, raw units."""

    observations: Tensor
    chunks: Tensor
    valid: Tensor

    def at(self, rows: Tensor) -> "Windows":
        """Those of the rows."""
        return Windows(self.observations[rows], self.chunks[rows], self.valid[rows])


def demonstrate(
    robot: Locomotion,
    expert: Expert,
    seeds: Sequence[int],
    noise: NoiseConfig,
    steps: int | None = None,
) -> list[Run]:
    """One episode from each seed, its executed actions perturbed as the built-in arm's are."""
    longest = steps or robot.max_steps
    return [
        run_expert(
            robot, expert, seed, perturbation_of(seed, noise, robot.action_spec, longest), steps
        )
        for seed in seeds
    ]


def windows_of(runs: Sequence[Run], horizon: int) -> Windows:
    """A window from each step of each episode."""
    observations, chunks, valid = [], [], []
    for run in runs:
        length = len(run.actions)
        steps = np.arange(length)[:, None] + np.arange(horizon)  # (T, H)
        observations.append(run.observations)
        chunks.append(run.actions[np.minimum(steps, length - 1)])
        valid.append(steps < length)
    joined = [np.concatenate(parts).astype(np.float32) for parts in (observations, chunks, valid)]
    return Windows(*(torch.from_numpy(array) for array in joined))


def embodiment_of(robot: Locomotion, name: str, index: int, windows: Windows) -> Embodiment:
    """The body of a runner, its observations and actions standardised by the demonstrations'."""
    graph = body_graph(robot.model)
    joints, slots = observed_slots(robot.model, robot.proprio_spec.labels or ())
    arrays = {
        "features": graph.features,
        "distances": graph.distances,
        "joint_body": graph.joint_body,
        "motor_joint": graph.motor_joint,
        "motor_body": graph.motor_body,
        "observed_joint": joints,
        "observed_slot": slots,
        "mean": windows.observations.mean(0).numpy(),
        "spread": windows.observations.std(0).numpy(),
        "action_mean": windows.chunks[:, 0].mean(0).numpy(),
        "action_spread": windows.chunks[:, 0].std(0).numpy(),
        "reach": np.array(robot.action_spec.high, np.float32),
    }
    return Embodiment(name=name, index=index, **tensors(arrays))
