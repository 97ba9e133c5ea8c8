"""Multi-hop reasoning: follow a chain of stated facts, one, two and three steps.

Eight facts "a leads to b", a token each in random order, make one ring of eight symbols. The fact
to begin with is marked. Asked are the symbols that are reached after one, two and three hops, a
token each: 1 at the symbol's place and -1 elsewhere. Each answer is equally likely at every number
of hops, and from two hops on no fact alone tells it: what the marked fact leads to has to be looked
up, once for each further hop. Three of eight hops are no shorter the other way round.

A fact is given as its two symbols, eight numbers each, 1 at its place and 0 elsewhere, and 1 or 0
for the mark. All hops are asked of one model, so that the longer chains can be built upon the
shorter ones. From an unmarked start, which a token of its own names, two and three hops stayed at
chance for 2,000 steps of the same size, asked of one model one at a time.
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from loopdit.eval.experiments.tasks.canvas_task import HELD_OUT, TRAIN, random_stream, tensors
from loopdit.policy.canvas.layout import CanvasLayout, Region
from loopdit.policy.canvas.modalities import ModalityConfig

SYMBOLS = 8
HOPS = (1, 2, 3)
FACTS = "facts"


def answer_region(hops: int) -> str:
    """The name of the output after so many hops."""
    return f"hops_{hops}"


@dataclass(frozen=True)
class HopsTask:
    """See the module."""

    @property
    def layout(self) -> CanvasLayout:
        """A row: the facts, then an answer for each number of hops."""
        row = range(1)
        answers = [
            Region(answer_region(hops), "action", row, row, range(place, place + 1))
            for place, hops in enumerate(HOPS, SYMBOLS)
        ]
        facts = Region(FACTS, "proprio", row, row, range(SYMBOLS))
        outputs = tuple(region.name for region in answers)
        return CanvasLayout((1, 1, SYMBOLS + len(HOPS)), (facts, *answers), outputs)

    @property
    def modalities(self) -> ModalityConfig:
        """A fact is two symbols and a mark; an answer says something of each symbol."""
        return ModalityConfig(proprio=2 * SYMBOLS + 1, action=SYMBOLS)

    @property
    def main(self) -> str:
        """The longest chain's answer."""
        return answer_region(HOPS[-1])

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
        one_hot = np.eye(SYMBOLS)
        before = np.take_along_axis(ring, order, axis=1)
        after = np.take_along_axis(ring, (order + 1) % SYMBOLS, axis=1)
        marked = (order == start[:, None])[..., None]
        facts = np.concatenate([one_hot[before], one_hot[after], marked], axis=-1)
        rows = np.arange(count)
        reached = {hops: ring[rows, (start + hops) % SYMBOLS] for hops in HOPS}
        answers = {
            answer_region(hops): 2 * one_hot[symbol][:, None] - 1
            for hops, symbol in reached.items()
        }
        return tensors({FACTS: facts, **answers})
