"""Multi-hop reasoning: follow a chain of stated facts, so many steps from where one is asked to.

Eight facts "a leads to b", a token each in random order, make one ring of eight symbols. The
question is a token: the symbol to start from and the number of hops. The answer is the symbol that
is reached, as 1 at its place and -1 elsewhere. Each answer is equally likely at every number of
hops, and from two hops on no fact alone tells it.

A fact is given as two groups of eight numbers, 1 at its symbol and 0 elsewhere; the question
likewise, its second group being 1 at the number of hops.
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from loopdit.eval.experiments.tasks.canvas_task import HELD_OUT, TRAIN, random_stream, tensors
from loopdit.policy.canvas.layout import CanvasLayout, Region
from loopdit.policy.canvas.modalities import ModalityConfig

SYMBOLS = 8
FACTS, QUESTION, ANSWER = "facts", "question", "answer"


@dataclass(frozen=True)
class HopsTask:
    """See the module."""

    hops: int

    @property
    def layout(self) -> CanvasLayout:
        """Facts on the first row, question and answer on the second, whose other positions are
        free."""
        first, second = range(1), range(1, 2)
        facts = Region(FACTS, "proprio", range(1), first, range(SYMBOLS))
        question = Region(QUESTION, "proprio", range(1), second, range(1))
        answer = Region(ANSWER, "action", range(1), second, range(1, 2))
        return CanvasLayout((1, 2, SYMBOLS), (facts, question, answer), outputs=(ANSWER,))

    @property
    def modalities(self) -> ModalityConfig:
        """An answer says something of each symbol."""
        return ModalityConfig(proprio=2 * SYMBOLS, action=SYMBOLS)

    @property
    def main(self) -> str:
        """The answer."""
        return ANSWER

    @property
    def splits(self) -> tuple[str, ...]:
        """No other."""
        return (TRAIN, HELD_OUT)

    def canvases(self, count: int, seed: int, split: str) -> dict[str, Tensor]:
        """See CanvasTask."""
        rng = random_stream(seed, split, self.splits)
        ring = rng.permuted(np.tile(np.arange(SYMBOLS), (count, 1)), axis=1)
        order = rng.permuted(np.tile(np.arange(SYMBOLS), (count, 1)), axis=1)
        start = rng.integers(SYMBOLS, size=count)
        rows, one_hot = np.arange(count), np.eye(SYMBOLS)
        before = np.take_along_axis(ring, order, axis=1)
        after = np.take_along_axis(ring, (order + 1) % SYMBOLS, axis=1)
        facts = np.concatenate([one_hot[before], one_hot[after]], axis=-1)
        asked = np.full(count, self.hops)
        question = np.concatenate([one_hot[ring[rows, start]], one_hot[asked]], axis=-1)
        answer = 2 * one_hot[ring[rows, (start + self.hops) % SYMBOLS]] - 1
        return tensors({FACTS: facts, QUESTION: question[:, None], ANSWER: answer[:, None]})
