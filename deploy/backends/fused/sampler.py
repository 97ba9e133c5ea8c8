"""A sampler's steps as numbers, so that a kernel can take them all in one call.

Of a sample s and the model's output o, each step of the samplers that are here is

    c = clip(s * chunk_of_sample + o * chunk_of_output, -clip, clip)
    s <- s * keep + o * move + c * take

with numbers that depend on the step alone. Shapes: S steps, L blocks, D width.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from loopdit.errors import BundleError
from loopdit.policy.block import AdaLNBlock
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.policy.objectives.diffusion import EPS, X0, Diffusion, alphas_at
from loopdit.policy.objectives.flow import Flow
from loopdit.policy.objectives.gripper import GripperObjective
from loopdit.policy.objectives.objective import CLEAN, DDIM, EULER, Objective
from loopdit.policy.objectives.regression import Regression

_COLUMNS = 6  # chunk_of_sample, chunk_of_output, clip, keep, move, take


class StepPlan(NamedTuple):
    """What a chunk in so many steps needs beside the observation and the noise, float32.

    schedule (S, 6) as in the module's docstring. modulations (S, L, 6, D): of each step and block
    of the action tokens, shift, 1 + scale and gate of the attention, then of the feed-forward.
    """

    schedule: np.ndarray
    modulations: np.ndarray


def inner_objective(policy: LoopedPolicy) -> Objective:
    """The one that moves samples, without the gripper's part. Raises BundleError where the sampler
    is none whose steps are numbers."""
    objective = policy.objective
    if isinstance(objective, GripperObjective):
        objective = objective.inner
    known = (
        isinstance(objective, Regression)
        or (isinstance(objective, Flow) and objective.sampler == EULER)
        or (isinstance(objective, Diffusion) and objective.sampler == DDIM)
    )
    if not known:
        config = policy.config.objective
        raise BundleError(
            f"the fused kernels have no sampler {config.chosen_sampler} of {config.kind}, "
            f"only euler, ddim and regression. Use backend=onnxruntime or torch."
        )
    return objective


@torch.inference_mode()
def step_plan(policy: LoopedPolicy, steps: int) -> StepPlan:
    """The plan of a chunk in so many steps (one, by regression). Raises ConfigError for steps
    that the sampler does not have."""
    schedule, times = step_schedule(policy, steps)
    return StepPlan(schedule.numpy(), modulations(policy, times).numpy())


def step_schedule(policy: LoopedPolicy, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`StepPlan.schedule` (S, 6), and the time (S,) of each step."""
    objective = inner_objective(policy)
    steps = objective.predictions(steps)
    level = torch.arange(steps) / steps
    dt = torch.full_like(level, 1 / steps)
    rows = torch.zeros(steps, _COLUMNS)
    rows[:, 2] = torch.inf
    if isinstance(objective, Diffusion):
        after = objective.snapped((level + dt).clamp(max=CLEAN))
        level = objective.snapped(level)
        _set_ddim(rows, objective, level, after)
    else:
        share = torch.ones(1) if isinstance(objective, Regression) else dt / (CLEAN - level)
        rows[:, 3], rows[:, 4] = 1 - share, share
    return rows, level


@torch.inference_mode()
def whole_step(policy: LoopedPolicy, level: float) -> StepPlan:
    """The plan of one step of flow matching's from `level` all the way to the clean chunk."""
    schedule = torch.zeros(1, _COLUMNS)
    schedule[:, 2], schedule[:, 4] = torch.inf, 1.0
    return StepPlan(schedule.numpy(), modulations(policy, torch.tensor([level])).numpy())


def modulations(
    policy: LoopedPolicy, times: torch.Tensor, stack: Sequence[AdaLNBlock] | None = None
) -> torch.Tensor:
    """What each block of `stack`, by default the action tokens', makes of times (S,): (S, L, 6, D)
    float32 as in `StepPlan`."""
    condition = policy.model.condition(times)  # (S, 1, D)
    ones = torch.tensor([0.0, 1.0, 0.0, 0.0, 1.0, 0.0])[:, None]  # of the scales
    blocks = stack or policy.model.action_stack
    each = [torch.cat(block.modulate(condition), dim=1) + ones for block in blocks]
    return torch.stack(each, dim=1).contiguous()  # (S, L, 6, D)


def _set_ddim(
    rows: torch.Tensor, objective: Diffusion, level: torch.Tensor, after: torch.Tensor
) -> None:
    """See `diffusion.clean_and_noise` and `diffusion.ddim_step`, whose arithmetic this is."""
    alpha, next_alpha = (alphas_at(objective.alphas, at).flatten() for at in (level, after))
    signal, spread = alpha.sqrt(), (1 - alpha).sqrt()
    next_spread = (1 - next_alpha).sqrt()
    zero, one = torch.zeros_like(signal), torch.ones_like(signal)
    if objective.kind == EPS:
        chunk, noise = (1 / signal, -spread / signal), (zero, one)
    elif objective.kind == X0:
        inverse = 1 / spread.clamp_min(1e-12)
        chunk, noise = (zero, one), (inverse, -signal * inverse)
    else:
        chunk, noise = (signal, -spread), (spread, signal)
    rows[:, 0], rows[:, 1] = chunk
    if objective.clip:
        rows[:, 2] = objective.clip
    rows[:, 3], rows[:, 4] = next_spread * noise[0], next_spread * noise[1]
    rows[:, 5] = next_alpha.sqrt()
