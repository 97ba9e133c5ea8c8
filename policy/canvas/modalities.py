"""What each kind of region is made of: into tokens, and from tokens back.

A region's values are (B, n, size) floats for n tokens, in normalised units; of text, (B, n) int64
ids of words with 0 for none. Frames are cut into patches by `patches`.

Knows one embedder and one head a kind, shared by all regions of that kind, and no positions.
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from loopdit.command import option
from loopdit.errors import ConfigError

PATCH = 8


@dataclass(frozen=True)
class ModalityConfig:
    """How many numbers a token of each kind stands for."""

    visual: int = option(3 * PATCH * PATCH, "numbers in a patch of a frame")
    proprio: int = option(11, "numbers of proprio in a token")
    action: int = option(4, "numbers of an action")
    reward: int = option(1, "numbers of a reward")
    vocabulary: int = option(64, "words that text is made of, 0 included")

    def __post_init__(self) -> None:
        for kind, size in vars(self).items():
            if size < 1:
                raise ConfigError(f"modalities.{kind}={size} must be at least 1.")


class TextEmbedder(nn.Module):
    """Ids of words (B, n) -> (B, n, D): a table and a perceptron of one hidden layer."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.hidden = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, n) int64 -> (B, n, D)."""
        return self.out(functional.silu(self.hidden(self.words(ids))))


def embedders(config: ModalityConfig, width: int) -> nn.ModuleDict:
    """One a kind, from its values (B, n, size) or ids (B, n) to (B, n, D)."""
    modules: dict[str, nn.Module] = {
        kind: nn.Linear(getattr(config, kind), width)
        for kind in ("visual", "proprio", "action", "reward")
    }
    return nn.ModuleDict(modules | {"text": TextEmbedder(config.vocabulary, width)})


def heads(config: ModalityConfig, width: int) -> nn.ModuleDict:
    """One for each kind that can be predicted, from (B, n, D) to (B, n, size)."""
    kinds = ("visual", "action", "reward")
    return nn.ModuleDict({kind: nn.Linear(width, getattr(config, kind)) for kind in kinds})


def patches(frames: Tensor, size: int = PATCH) -> Tensor:
    """Frames (B, F, 3, S, W) -> their patches (B, F * S/size * W/size, 3 size size), row by row."""
    cut = frames.unflatten(-1, (-1, size)).unflatten(-3, (-1, size))  # (B, F, 3, r, size, c, size)
    return cut.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(1, 3)


def frames_of(patched: Tensor, rows: int, columns: int, size: int = PATCH) -> Tensor:
    """The inverse of `patches`, for frames of rows x columns patches."""
    cut = patched.unflatten(2, (-1, size, size)).unflatten(1, (-1, rows, columns))
    return cut.permute(0, 1, 4, 2, 5, 3, 6).flatten(5).flatten(3, 4)
