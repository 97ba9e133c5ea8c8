"""The baseline between the paper's head and the rich one: a small network on the mean video token.

Shapes: B batch, N tokens of width D, H action horizon, A action dim. It sees the whole hidden
state, but no place in it, and says the chunk in one go.
"""

from torch import Tensor, nn

from loopdit.policy.graft.features import Features


class DirectHead(nn.Module):
    """See `head.Head`. Samples and levels are not looked at."""

    loops = 1

    def __init__(
        self, hidden: int, width: int, horizon: int, action_dim: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.horizon = horizon
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.Sequential(
            nn.LayerNorm(hidden),
            nn.Linear(hidden, width),
            nn.GELU(),
            nn.Linear(width, horizon * action_dim),
        )

    def read(self, features: Features) -> tuple[Tensor, ...]:
        """The chunk (B, H, A)."""
        mean = self.dropout(features.hidden.float().mean(1))  # (B, D)
        return (self.layers(mean).unflatten(-1, (self.horizon, -1)),)

    def exits(
        self, memory: tuple[Tensor, ...], sample: Tensor, level: Tensor, loops: int
    ) -> list[Tensor]:
        """That chunk."""
        del sample, level, loops
        return [memory[0]]
