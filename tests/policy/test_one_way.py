"""The two paths that scripts/bench_one_way.py times compute the same thing."""

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

import loopdit

SCRIPT = Path(loopdit.__file__).parents[2] / "scripts" / "bench_one_way.py"
BENCH: dict[str, Any] = runpy.run_path(str(SCRIPT))


@pytest.mark.parametrize("loops", [1, 2, 3, 4])
@pytest.mark.parametrize("steps", [1, 3, 10])
@torch.inference_mode()
def test_keys_and_values_kept_once_are_one_attention_over_all_tokens_in_each_step(
    loops: int, steps: int
):
    size = BENCH["Size"](inputs=120, actions=16, steps=steps, loops=loops, blocks=2)
    arms = BENCH["Arms"](64, size)
    cached, uncached = arms.cached(), arms.uncached()
    torch.testing.assert_close(cached, uncached, atol=1e-5, rtol=0)
    # And not because nothing matters: inputs that see the noise make another chunk.
    assert (cached - arms.dense()).abs().max() > 1e-3
