"""A checkpoint of whichever kind, for who serves, evaluates or describes policies of both.

What the kinds have in common is used through the policy itself: `spec`, `config`, `depths`,
`horizon`, `temperature`, `act`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Union

from loopdit.policy.checkpoint import GRAFT, Checkpoint, checkpoint_kind, load_checkpoint
from loopdit.policy.looped_policy import LoopedPolicy

if TYPE_CHECKING:
    from loopdit.policy.graft.checkpoint import GraftCheckpoint
    from loopdit.policy.graft.graft_policy import GraftPolicy

AnyPolicy = Union[LoopedPolicy, "GraftPolicy"]


def load_any(folder: str | Path) -> "Checkpoint | GraftCheckpoint":
    """Read it. Raises CheckpointError as its kind's reader does."""
    if checkpoint_kind(folder) == GRAFT:
        from loopdit.policy.graft.checkpoint import load_graft_checkpoint  # late: diffusers is slow

        return load_graft_checkpoint(folder)
    return load_checkpoint(folder)


def untrained(policy: AnyPolicy) -> AnyPolicy:
    """One of the same shape whose weights torch's generator draws; its video model stays."""
    if isinstance(policy, LoopedPolicy):
        return LoopedPolicy(policy.spec, policy.config)
    return type(policy)(policy.spec, policy.config)
