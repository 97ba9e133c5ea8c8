"""The paper's action head: Linear(16, 8), GELU, Linear(8, 7) on the mean of the predicted latents.

Shapes: B batch, T latent frames of C x h x w, A action dim. 199 parameters for C = 16 and A = 7.
The mean over T, h and w is taken before anything is learned, so that what the 1920 numbers of each
token know of a place or a moment reaches the actions through C numbers: the paper's section 5.3
calls it the bottleneck. It says one action.
"""

from torch import Tensor, nn

from loopdit.policy.graft.features import Features

_HIDDEN = 8


class PaperHead(nn.Module):
    """See `head.Head`. Samples and levels are not looked at."""

    loops = 1

    def __init__(self, channels: int, action_dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(channels, _HIDDEN), nn.GELU(), nn.Linear(_HIDDEN, action_dim)
        )

    def read(self, features: Features) -> tuple[Tensor, ...]:
        """The action (B, 1, A)."""
        mean = features.sample.mean(dim=(1, 3, 4))  # (B, C)
        return (self.layers(mean.float())[:, None],)

    def exits(
        self, memory: tuple[Tensor, ...], sample: Tensor, level: Tensor, loops: int
    ) -> list[Tensor]:
        """That action."""
        del sample, level, loops
        return [memory[0]]
