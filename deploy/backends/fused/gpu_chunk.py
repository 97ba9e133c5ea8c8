"""What is before and after the GPU's kernel, in torch: actions in flight, grippers, raw units.

Shapes as in `triton_kernel`. Free of choices on values, so that it can be captured and traced.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from loopdit.deploy.backends.fused.sampler import inner_objective
from loopdit.policy.looped_dit import Context
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.policy.objectives.gripper import GripperObjective
from loopdit.policy.objectives.objective import CLEAN
from loopdit.policy.objectives.regression import Regression
from loopdit.policy.prefix import is_committed, with_prefix


class Given(NamedTuple):
    """What the kernel reads of one chunk, by its names and in its order, contiguous."""

    noise: Tensor
    keys: Tensor
    values: Tensor
    mask: Tensor
    share: Tensor
    known: Tensor


# The samples after the last step, and what the model said in it, both (B, H, A).
Run = Callable[[Given], tuple[Tensor, Tensor]]


def chunk_by(run: Run, policy: LoopedPolicy, context: Context, noise: Tensor) -> Tensor:
    """Noise (B, H, A) -> raw actions (B, H, A), all on one device."""
    begun = torch.zeros_like(noise) if isinstance(inner_objective(policy), Regression) else noise
    known = torch.zeros_like(begun[..., 0], dtype=torch.bool)
    if context.committed is not None:
        known = is_committed(context.committed, policy.horizon)
        begun = with_prefix(begun, context.committed)
    share = known.float().unflatten(1, (-1, policy.config.actions_per_token)).mean(2)
    mask = known if context.mask is None else context.mask
    given = Given(begun, context.keys, context.values, mask.float(), share, known.float())
    chunk, said = run(Given(*(tensor.contiguous() for tensor in given)))
    objective = policy.objective
    if isinstance(objective, GripperObjective):
        level = torch.where(known, CLEAN, 0.0)
        chunk = torch.where(objective.mask, objective.chunk(begun, said, level), chunk)
    return policy.to_actions(chunk)
