"""In-context learning on the canvas: a hidden shift of the plane, shown by pairs, asked of a query.

Each canvas has a shift of its own, normal along both axes. A pair is a normal vector x of the plane
and x shifted, with noise of 0.3; after `pairs` of them comes a query x, and the answer is it
shifted, without noise. Without a pair nothing tells the shift and the best guess is the query
itself, with an error of 1; n pairs leave 0.09 / (n + 0.09) of it (the posterior mean's). So whoever
does as well without pairs as with them has not read them: there is no other way.

A shift is a sum: the mean difference of the pairs, added to the query. A hidden turn of the plane
in its place takes a product of two tokens, and was not seen to be learned at the small scale.
"""

from dataclasses import dataclass

from torch import Tensor

from loopdit.eval.experiments.tasks.canvas_task import HELD_OUT, TRAIN, random_stream, tensors
from loopdit.policy.canvas.layout import CanvasLayout, Region
from loopdit.policy.canvas.modalities import ModalityConfig

ANSWER = "answer"
MOST_PAIRS = 4
NOISE = 0.3


@dataclass(frozen=True)
class ContextTask:
    """See the module."""

    pairs: int

    @property
    def layout(self) -> CanvasLayout:
        """A slice a pair: what is shifted, and what it became; the query and its answer come last.

        Always of the same size: without a pair its positions are free.
        """
        shown = range(self.pairs)
        last = range(MOST_PAIRS, MOST_PAIRS + 1)
        pairs = (
            Region("xs", "proprio", shown, range(1), range(1)),
            Region("ys", "action", shown, range(1, 2), range(1)),
        )
        query = Region("query", "proprio", last, range(1), range(1))
        answer = Region(ANSWER, "action", last, range(1, 2), range(1))
        regions = (*(pairs if self.pairs else ()), query, answer)
        return CanvasLayout((MOST_PAIRS + 1, 2, 1), regions, outputs=(ANSWER,))

    @property
    def modalities(self) -> ModalityConfig:
        """Vectors of the plane."""
        return ModalityConfig(proprio=2, action=2)

    @property
    def main(self) -> str:
        """The query, shifted."""
        return ANSWER

    @property
    def splits(self) -> tuple[str, ...]:
        """No other."""
        return (TRAIN, HELD_OUT)

    def canvases(self, count: int, seed: int, split: str) -> dict[str, Tensor]:
        """See CanvasTask."""
        rng = random_stream(seed, split, self.splits)
        shift = rng.normal(size=(count, 1, 2))
        x = rng.normal(size=(count, MOST_PAIRS + 1, 2))
        y = x + shift
        noisy = y + NOISE * rng.normal(size=y.shape)
        canvas = {"query": x[:, -1:], ANSWER: y[:, -1:]}
        if self.pairs:
            canvas |= {"xs": x[:, : self.pairs], "ys": noisy[:, : self.pairs]}
        return tensors(canvas)
