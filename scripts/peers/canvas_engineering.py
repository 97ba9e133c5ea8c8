"""The author's own looped blocks (`canvas-engineering` on PyPI) and ours, trained on one task.

Only their wrapper around a block is taken: a gate of one number a loop, where ours has one for each
token, and loops without re-computation in the backward pass. Model, task, seeds and steps are those
of experiment 6, by the same harness, so results are stored and resumed as those of
`policy-experiment run`. The package is a benchmark's and none of ours: put it into a folder,

    pip install --no-deps --target FOLDER canvas-engineering==0.5.0 einops
    python scripts/peers/canvas_engineering.py --package FOLDER --scale smoke --out OUT

Before anything is trained it is checked that both compute the same at their common start.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from loopdit.eval.experiments.canvas.stacks import STACKS
from loopdit.eval.experiments.experiment import SCALES, merged, named, read
from loopdit.eval.experiments.plan import runs_of
from loopdit.eval.experiments.runner import run_all
from loopdit.eval.experiments.store import results
from loopdit.policy.block import AdaLNBlock
from loopdit.policy.canvas.canvas_model import CanvasModel
from loopdit.policy.canvas.config import CanvasModelConfig
from loopdit.policy.loops.config import LoopConfig
from loopdit.policy.loops.looped_stack import LoopedStack, LoopOutput

THEIRS = "canvas_engineering"
NAME = "peer_canvas_engineering"


class Bare(nn.Module):
    """A block called as their wrapper calls it: state first."""

    def __init__(self, block: AdaLNBlock) -> None:
        super().__init__()
        self.block = block

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """tokens (B, N, D), condition (B, 1, C) -> (B, N, D)."""
        return self.block(tokens, condition)[0]


class TheirStack(LoopedStack):
    """Their wrapper around each of a model's blocks, called as our stack is."""

    def __init__(self, model: CanvasModel) -> None:
        from canvas_engineering.looped_block import (  # pyright: ignore[reportMissingImports] - a folder given at run time
            LoopedBlockWrapper,
        )

        nn.Module.__init__(self)
        width = model.config.width
        self.config = model.config.loops
        blocks = (
            AdaLNBlock(width, model.config.heads, 2 * width) for _ in range(model.config.blocks)
        )
        self.blocks = nn.ModuleList(
            LoopedBlockWrapper(
                Bare(block),
                max_loops=self.config.loops,
                embed_dim=width,
                use_gradient_checkpointing=False,
            )
            for block in blocks
        )

    def forward(
        self,
        tokens: Tensor,
        condition: Tensor,
        loops: int | None = None,
        bias: Tensor | None = None,
        positions: Tensor | None = None,
        keep_states: bool = False,
        truncate: int | None = None,
    ) -> LoopOutput:
        """See LoopedStack; for a dense canvas without positions in its attention."""
        assert bias is None
        assert positions is None
        loops = self.config.loops if loops is None else loops
        for block in cast(list[Any], list(self.blocks)):
            block.set_loops(loops)
            tokens = block(tokens, condition)
        used = tokens.new_full(tokens.shape[:2], loops)
        return LoopOutput(tokens, tokens.new_zeros(()), used, None)


def main() -> None:
    """Check, train what is missing, say what came of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--package", required=True, help="folder that has canvas_engineering")
    parser.add_argument("--scale", default="smoke", choices=SCALES)
    parser.add_argument("--seeds", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("outputs/experiments"))
    given = parser.parse_args()
    sys.path.insert(0, given.package)
    STACKS[THEIRS] = TheirStack
    _require_same_start()
    experiment = read(NAME, json.dumps(_declaration()))
    runs = list(runs_of(experiment, given.scale, given.seeds))
    tally = run_all(runs, given.out, 1, "processes", "cpu")
    for failed in tally.failed:
        sys.stdout.write(f"{failed}\n")
    found = results(given.out, experiment, given.scale)
    for level in experiment.factors["looped_by"]:
        losses = [r.metrics["total_loss"] for r in found if r.factors["looped_by"] == level]
        spread = statistics.stdev(losses) if len(losses) > 1 else float("nan")
        sys.stdout.write(
            f"{level}: total loss {statistics.fmean(losses):.4f}, sd {spread:.4f}, "
            f"n {len(losses)}\n"
        )


def _declaration() -> dict[str, Any]:
    """Experiment 6's looped system, by us and by them."""
    of = named("6")
    options = merged(of.options, of.factors["system"]["3b4l"])
    return {
        "title": "The author's looped blocks",
        "claim": "Ours: a gate for each token is better than one number a loop.",
        "choices": list(of.choices),
        "study": of.study,
        "metric": of.metric,
        "better": of.better,
        "options": options,
        # Their gates are not ours to be measured.
        "factors": {"looped_by": {"ours": {}, "theirs": {"stack": THEIRS, "measures": []}}},
        "scales": {
            name: {"seeds": scale.seeds, **scale.options} for name, scale in of.scales.items()
        },
    }


def _require_same_start() -> None:
    """Both with the same block weights, before any training: all gates are 0.5."""
    torch.manual_seed(0)
    model = CanvasModel(
        CanvasModelConfig(width=32, heads=2, blocks=2, loops=LoopConfig(loops=3, init="paper"))
    )
    theirs = TheirStack(model)
    for unit, block in zip(model.stack.units, cast(list[Any], list(theirs.blocks)), strict=True):
        own = cast(Any, unit).blocks[0].block
        block.original.block.load_state_dict(own.state_dict())
    tokens, condition = torch.randn(2, 120, 32), torch.randn(2, 1, 64)
    with torch.no_grad():
        ours = model.stack(tokens, condition).tokens
        torch.testing.assert_close(theirs(tokens, condition).tokens, ours)


if __name__ == "__main__":
    main()
