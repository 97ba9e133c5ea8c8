"""The canvas systems of the paper, by name: what experiment 6 compares, and v2.

Parameters, on the 120 positions of `v1_layout` (facts recomputed from the published code):

    v1_3b4l 1,491,409   v1_12b1l_d68 1,443,373   v1_6b2l_d95 1,488,574   v1_12b1l_d128 5,036,113

With d the width, a block has 4 d^2 + 3 d int(8 d / 3) in attention and feed-forward and
6 d (2 d + 1) in its modulation, and 2 d + 1 a loop; the level's perceptron has 12 d^2 + 6 d; what
is left of the published counts is 2 d^2 + 597 d + 197 at every width. How that is divided among
embedders (2 d^2 + 278 d), positions (120 d), heads (197 d + 197) and the last norm is our
choice: it is one of those that fit, with text of 64 words, 11 numbers of proprio and 4 an action.

The paper's model of "2.22M unique" parameters follows from none of its text and is not here.
"""

from collections.abc import Mapping

from loopdit.policy.canvas.config import CanvasModelConfig
from loopdit.policy.loops.config import LoopConfig


def _v1(blocks: int, loops: int, width: int, heads: int = 4) -> CanvasModelConfig:
    return CanvasModelConfig(width=width, heads=heads, blocks=blocks, loops=LoopConfig(loops=loops))


# v2 sharpens up to 2, the paper's "mild" (experiment 18: more hurts).
_V2 = CanvasModelConfig(
    geometric=True, loops=LoopConfig(loops=4, sharpest=2.0, halting="token", ponder=0.01)
)

CANVAS_SYSTEMS: Mapping[str, CanvasModelConfig] = {
    "v1_3b4l": _v1(3, 4, 128),
    "v1_12b1l_d68": _v1(12, 1, 68),
    "v1_6b2l_d95": _v1(6, 2, 95, heads=5),
    "v1_12b1l_d128": _v1(12, 1, 128),
    "v2_3b4l": _V2,
}
