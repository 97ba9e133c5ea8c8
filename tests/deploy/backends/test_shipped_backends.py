"""The shipped bundle on each back end: of another size than the tiny one, which hides some faults.

OpenVINO 2026.4.1 was right for the tiny policy and wrong for this one, until it was told otherwise.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.deploy.backends.general_backends import GENERAL

from loopdit.deploy.backends import load_backend
from loopdit.deploy.bundle.bundle import Bundle, default_bundle
from loopdit.deploy.bundle.probes import Probes, bundle_probes
from loopdit.deploy.export.parity import backend_chunks, reference_chunks
from loopdit.policy.checkpoint import load_policy

STEPS = 4


@pytest.fixture(scope="module", autouse=True)
def torch_threads() -> Iterator[None]:
    """The torch back end sets them for the whole process; other tests want theirs back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.open(default_bundle())


@pytest.fixture(scope="module")
def probes(bundle: Bundle) -> Probes:
    return bundle_probes(bundle, 6, seed=0)


@pytest.fixture(scope="module")
def references(bundle: Bundle, probes: Probes) -> dict[int, np.ndarray]:
    policy = load_policy(bundle.path)
    return {k: reference_chunks(policy, probes, k, STEPS) for k in bundle.loops}


@pytest.mark.parametrize("name", GENERAL)
def test_it_acts_alike_at_every_depth_and_batch(
    bundle: Bundle, probes: Probes, references: dict[int, np.ndarray], name: str
):
    backend = load_backend(bundle, name)
    for loops, reference in references.items():
        for batch in (1, 3):
            found = backend_chunks(backend, probes, loops, STEPS, batch)
            # The gripper's sharpest turn multiplies a rounding by some hundreds.
            np.testing.assert_allclose(found, reference, atol=5e-5)
            assert np.abs(found - reference).mean() < 1e-6


@pytest.mark.skipif(
    "openvino" not in GENERAL or "avx512_bf16" not in Path("/proc/cpuinfo").read_text(),
    reason="needs openvino and a CPU with AVX-512 BF16",
)
def test_bf16_costs_what_is_written_of_it(
    bundle: Bundle, probes: Probes, references: dict[int, np.ndarray]
):
    backend = load_backend(bundle, "openvino", precision="bf16")
    for loops, reference in references.items():
        error = np.abs(backend_chunks(backend, probes, loops, STEPS) - reference)
        # docs/backends.md has 4e-4 to 5e-4 in 10 steps; float32 has 2e-8.
        assert 1e-5 < error.mean() < 2e-3
