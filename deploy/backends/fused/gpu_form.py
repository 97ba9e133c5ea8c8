"""A policy as the GPU's kernel takes it: the constants of its compilation, and its weights.

Knows no Triton, so that what is wrong with a policy is said without it. Shapes and names as in
`triton_kernel`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from loopdit.deploy.backends.fused.sampler import inner_objective, modulations
from loopdit.errors import BundleError
from loopdit.policy.block import HEAD_SIZE
from loopdit.policy.looped_dit_config import ONE_WAY
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.policy.objectives.gripper import GripperObjective
from loopdit.policy.objectives.objective import CLEAN

# What the kernel computes with; the rest is float32 in every precision.
MATRICES = ("queries_keys_values", "attention_out", "feedforward_in", "feedforward_out")

_WARPS = 8
# Of copies from global memory that run ahead of a loop over heads or tiles: a program has one or
# two of those, and what the copies would take is shared memory.
_STAGES = 1
_TILE = 32  # columns of the hidden layer that are computed together: 16 such for a width of 192
_SHORTEST_SUM = 16  # what a product of the kernel's adds up at least
_MOST_WIDTH = 256  # beyond, and beyond so many rows, the registers do not hold a tile
_MOST_ROWS = 16


@dataclass(frozen=True)
class KernelForm:
    """Sizes that are constants of the kernel; see `triton_kernel.denoise_kernel`."""

    width: int
    hidden: int
    blocks: int
    rows: int
    group: int
    actions: int
    masked: bool
    committed: bool
    injected: bool

    @property
    def heads(self) -> int:
        """Heads of a block."""
        return self.width // HEAD_SIZE

    @property
    def tiles(self) -> int:
        """Tiles of a block's hidden layer."""
        return -(-self.hidden // _TILE)

    @property
    def constants(self) -> dict[str, int | bool]:
        """By the kernel's names."""
        return {
            **{"WIDTH": self.width, "HIDDEN": self.hidden, "BLOCKS": self.blocks},
            **{"ROWS": self.rows, "GROUP": self.group, "ACTIONS": self.actions, "TILE": _TILE},
            "PAD_WIDTH": _padded(self.width),
            "PAD_ROWS": _padded(self.rows),
            "PAD_ACTIONS": max(_SHORTEST_SUM, _padded(self.group * self.actions)),
            "MASKED": self.masked,
            "COMMITTED": self.committed,
            "INJECTED": self.injected,
        }

    def programs(self, batch: int, processors: int) -> int:
        """How many programs to share one observation's work between, on so many multiprocessors.

        Each of the batch's programs gets a multiprocessor of its own, so that all are on the GPU
        at the same time, as those that meet must be. One program meets nobody, and there may be
        any number of such; so every batch runs on every GPU.
        """
        most = max(1, min(processors // batch, max(self.heads, self.tiles)))
        rounds = -(-max(self.heads, self.tiles) // most)
        return -(-max(self.heads, self.tiles) // rounds)  # the fewest that need no more rounds


def kernel_form(policy: LoopedPolicy) -> KernelForm:
    """Raises BundleError for a policy that the kernel cannot compute."""
    inner_objective(policy)
    config = policy.config
    rows = config.action_horizon // config.actions_per_token
    unknown = ""
    if config.topology != ONE_WAY:
        unknown = f"policy.topology={config.topology}"
    elif config.width > _MOST_WIDTH:
        unknown = f"policy.width={config.width}, above {_MOST_WIDTH}"
    elif rows > _MOST_ROWS:
        unknown = f"{rows} action tokens, above {_MOST_ROWS}"
    if unknown:
        raise BundleError(
            f"backend=fused-cuda has no kernel for {unknown}. Use backend=cuda-graph."
        )
    return KernelForm(
        width=config.width,
        hidden=policy.model.stack[0].feedforward_out.in_features,
        blocks=config.blocks,
        rows=rows,
        group=config.actions_per_token,
        actions=policy.spec.action.shape[-1],
        masked=config.optional_cameras,
        committed=config.prefix > 0,
        injected=config.injection,
    )


def launch_options(programs: int) -> dict[str, int | bool]:
    """Triton's options for that many programs an observation.

    A cooperative launch is refused by the driver if its programs do not fit on the GPU together,
    rather than that those which run wait for those which cannot.
    """
    return {
        "num_warps": _WARPS,
        "num_stages": _STAGES,
        "launch_cooperative_grid": programs > 1,
    }


def kernel_tensors(policy: LoopedPolicy, dtype: torch.dtype) -> dict[str, Tensor]:
    """What the kernel reads of a float32 policy on the CPU, by its names and in its order.

    `dtype` is that of MATRICES. Of operations that can be traced into a graph.
    """
    model, blocks = policy.model, policy.model.action_stack
    embedding = model.loop_embedding
    objective = policy.objective
    hidden = objective.mask if isinstance(objective, GripperObjective) else torch.tensor(False)
    tensors = {
        **{
            name: torch.stack([getattr(block, name).weight.T for block in blocks]).to(dtype)
            for name in MATRICES
        },
        "action_in": model.action_in.weight.T,
        "action_place": model.action_position + model.action_in.bias,
        "embedding": embedding,
        "carry": embedding if model.injection is None else model.injection.carry,
        "clean": modulations(policy, torch.tensor([CLEAN]))[0],
        "out_scale": model.out_norm.weight,
        "out_shift": model.out_norm.bias,
        "action_out": model.action_out.weight.T,
        "action_bias": model.action_out.bias,
        "visible": (~hidden).float().expand(policy.spec.action.shape[-1]),
    }
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _padded(count: int) -> int:
    """The power of two that is not below."""
    return 1 << (count - 1).bit_length()
