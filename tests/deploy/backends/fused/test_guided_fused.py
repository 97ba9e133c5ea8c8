"""The shipped policy guided on the fused kernels, which are asked for single steps."""

import numpy as np
import pytest
import torch

from loopdit.deploy.backends import load_backend
from loopdit.deploy.backends.registry import KINDS
from loopdit.deploy.bundle.bundle import Bundle, default_bundle
from loopdit.deploy.robot.guide import GUIDE, guide_for
from loopdit.deploy.serving.served_bundle import ServedBundle


@pytest.mark.skipif(
    KINDS["fused"].unavailable() is not None, reason=f"fused {KINDS['fused'].unavailable()}"
)
def test_a_guided_chunk_of_the_fused_kernels_is_that_of_the_trained_module():
    threads = torch.get_num_threads()
    bundle = Bundle.open(default_bundle())
    rng = np.random.default_rng(1)
    observation = {
        t.name: rng.integers(0, 255, t.shape).astype(t.dtype)
        if t.is_image
        else rng.normal(0, 0.1, t.shape).astype(t.dtype)
        for t in bundle.spec.observations
    }
    guide = guide_for(rng.uniform(-0.02, 0.02, (8, 7)), delay=2)
    told = bundle.manifest.instructions[0]
    kept, free = list[np.ndarray](), list[np.ndarray]()
    for name in ("torch", "fused"):
        policy = ServedBundle(bundle, load_backend(bundle, name, 1))
        for chunks, seen in ((kept, {**observation, GUIDE: guide}), (free, observation)):
            made = policy.infer(seen, seed=1, loops=3, steps=7, instruction=told)
            chunks.append(made.actions)
    torch.set_num_threads(threads)
    np.testing.assert_allclose(kept[1], kept[0], atol=2e-6)
    assert np.abs(kept[1] - free[1]).max() > 0.01
