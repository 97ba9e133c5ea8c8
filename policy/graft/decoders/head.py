"""What the network of an action decoder is.

Shapes: B batch, H action horizon, A action dim. Normalised units.
"""

from typing import Protocol

from torch import Tensor

from loopdit.policy.graft.features import Features


class Head(Protocol):
    """Reads an observation's features once, then says of any noisy chunk what the objective asks.

    `loops` is how deep it can run by itself.
    """

    loops: int

    def read(self, features: Features) -> tuple[Tensor, ...]:
        """What denoising needs of the features: once for each observation."""
        ...

    def exits(
        self, memory: tuple[Tensor, ...], sample: Tensor, level: Tensor, loops: int
    ) -> list[Tensor]:
        """What the head says of samples (B, H, A) at levels (B,) after each of its loops up to
        `loops`: (B, H, A) each."""
        ...
