"""How many loops a training step has, and what shallow depths are taught."""

import pytest
import torch
from tests.eval.experiments.canvas.models import canvases, model_of

from loopdit.errors import ConfigError
from loopdit.eval.experiments.canvas.depth import DepthOptions, depth_losses, loops_of
from loopdit.policy.loops.config import LoopConfig


def depths(mode: str, steps: int) -> list[int]:
    generator = torch.Generator().manual_seed(0)
    return [loops_of(DepthOptions(mode), 4, step, steps, generator) for step in range(steps)]


def test_the_curriculum_is_the_papers():
    expected = [min(1 + step // 1000, 4) for step in range(5000)]
    assert depths("curriculum", 5000) == expected


def test_a_random_depth_is_each_as_often_and_a_fixed_one_the_deepest():
    counts = torch.bincount(torch.tensor(depths("random", 4000)), minlength=5)
    assert counts[0] == 0
    assert (counts[1:] - 1000).abs().max() < 6 * (4000 * 0.25 * 0.75) ** 0.5
    assert set(depths("fixed", 10)) == {4}


def test_any_is_the_mean_over_depths_and_distilling_mixes_the_deepest_into_the_target():
    model, canvas = model_of(LoopConfig(loops=3)), canvases(4)
    draws = model.draw(4, torch.Generator().manual_seed(0))
    noisy = model.noised(canvas, draws.noise, draws.level)
    said = [model(noisy, draws.level, loops).predicted["contact"] for loops in (1, 2, 3)]
    target = canvas["contact"]  # flow predicts the clean value
    for distill in (0.0, 0.4):
        taught = (1 - distill) * target + distill * said[-1].detach()
        errors = [((s - taught) ** 2).mean() for s in said[:-1]]
        expected = (sum(errors) + ((said[-1] - target) ** 2).mean()) / 3
        found, _ = depth_losses(model, canvas, draws, 3, DepthOptions("any", distill))
        torch.testing.assert_close(found["contact"], expected)


def test_distilling_without_any_is_refused():
    with pytest.raises(
        ConfigError, match=r"depth\.distill=0\.5 does nothing without depth\.mode=any"
    ):
        DepthOptions("fixed", 0.5)
