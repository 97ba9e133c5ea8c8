"""One token that says what to do, from what the policy is told.

Shapes: B batch, W words of an instruction, D width. Two ways to be told, each (B, ...) ->
(B, 1, D):

    words      numbers of the instruction's words (B, W) int64 (`vocabulary`): other words for the
               same task are understood as far as the words are known
    task       the number of one of the instructions of the data (B,) int64: no words, no confusion

Nothing here depends on the values in its control flow, so all of it exports to a graph.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from loopdit.errors import ConfigError
from loopdit.policy.encoders.vocabulary import PADDING, TASK, UNKNOWN, Vocabulary


class InstructionEncoder(nn.Module):
    """Words in order: (B, W) int64 -> (B, 1, D), whatever the padding behind them.

    Each word with its two neighbours, then the mean over the words. A mean of the words by
    themselves would not tell "stack the red cube on the blue cube" from its opposite, and neither
    would one of pairs: both have the same. Without any word the token is learned, as the bias.
    """

    def __init__(self, vocabulary_size: int, width: int) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary_size, width)
        self.neighbours = nn.Conv1d(width, width, 3, padding=1)
        self.project = nn.Linear(width, width)

    def forward(self, ids: Tensor) -> Tensor:
        """Numbers of words (B, W), 0 where there is none -> (B, 1, D)."""
        said = (ids != PADDING)[..., None].to(self.words.weight.dtype)  # (B, W, 1)
        words = self.words(ids) * said
        mixed = functional.silu(self.neighbours(words.mT).mT) * said
        mean = mixed.sum(1, keepdim=True) / said.sum(1, keepdim=True).clamp(min=1.0)
        return self.project(mean)


class TaskEncoder(nn.Module):
    """Number of a task: (B,) int64 -> (B, 1, D)."""

    def __init__(self, tasks: int, width: int) -> None:
        super().__init__()
        self.tasks = nn.Embedding(tasks, width)

    def forward(self, task: Tensor) -> Tensor:
        """(B,) -> (B, 1, D)."""
        return self.tasks(task)[:, None]


def make_instruction_encoder(
    kind: str, width: int, vocabulary: Vocabulary
) -> InstructionEncoder | TaskEncoder:
    """A fresh encoder for a policy that is told its task by WORDS or by TASK.

    Raises ConfigError where the data has no instruction to tell.
    """
    if not vocabulary.words:
        raise ConfigError(
            f"policy.instruction={kind}, but the data has no instruction with words in it. Leave "
            f"it out, or record the episodes with one."
        )
    if kind == TASK:
        return TaskEncoder(len(vocabulary.instructions), width)
    return InstructionEncoder(vocabulary.size, width)


def drop_words(ids: Tensor, chances: Tensor, dropout: float) -> Tensor:
    """Words (B, W) each made the unknown one with chance `dropout`, in training, so that a policy
    learns to do without a word it has never met.

    `chances` (B, W) in [0, 1), drawn for the whole batch as those of `training/augmentation` are.
    An instruction keeps at least one of its words, that of the largest chance.
    """
    drawn = torch.where(ids == PADDING, -1.0, chances)
    largest = drawn == drawn.amax(1, keepdim=True)
    hidden = (chances < dropout) & ~largest & (ids != PADDING)
    return torch.where(hidden, UNKNOWN, ids)
