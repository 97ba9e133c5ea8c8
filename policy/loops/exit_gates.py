"""Exit gates: how much each loop's state counts in the result, for a sample or for each token.

After each loop a gate gives the probability to exit there, if not before; the last loop takes what
is left. The result is the mean of the states under these probabilities (adaptive computation time,
arXiv 1603.08983, per token as in arXiv 1807.03819; probabilities as in PonderNet, arXiv 2107.05407,
which takes the mean of the losses instead). Their mean number of loops is the ponder cost.

Shapes: B batch, N tokens, D width. Every loop is computed, in training as after it: these gates
weigh states and save no work. `halting` does.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

# Of a fresh gate, sigmoid(-3) = 0.05 a loop: nearly all of the result is the last loop's.
_FRESH = -3.0


class ExitGate(nn.Module):
    """The probability to exit: one Linear(D, 1), of each token or of a sample's mean token."""

    def __init__(self, width: int, per_token: bool) -> None:
        super().__init__()
        self.per_token = per_token
        self.logit = nn.Linear(width, 1)
        nn.init.zeros_(self.logit.weight)
        nn.init.constant_(self.logit.bias, _FRESH)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (B, N, D) -> (B, N, 1) in (0, 1), or (B, 1, 1) for a whole sample."""
        read = tokens if self.per_token else tokens.mean(1, keepdim=True)
        return self.logit(read).sigmoid().to(tokens.dtype)


def mix_exits(states: Sequence[Tensor], gate: ExitGate) -> tuple[Tensor, Tensor]:
    """The states (B, N, D) after each loop -> their mean (B, N, D), expected loops (B, N)."""
    remaining = torch.ones_like(states[0][..., :1])
    mixed, used = torch.zeros_like(states[0]), torch.zeros_like(remaining)
    for loop, tokens in enumerate(states, 1):
        share = remaining * gate(tokens) if loop < len(states) else remaining
        mixed = mixed + share * tokens
        used = used + loop * share
        remaining = remaining - share
    return mixed, used.squeeze(-1)
