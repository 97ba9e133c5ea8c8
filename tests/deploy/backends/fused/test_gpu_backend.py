"""The kernel on a GPU, against the trained module: pytest -m gpu."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from tests.deploy.backends.fused.fused_policies import (
    POLICIES,
    STEPS,
    expected,
    largest_error,
    noises,
    observations,
    random_policy,
)

from loopdit.deploy.backends import BACKEND_NAMES, load_backend
from loopdit.deploy.backends.cuda_graph_backend import CudaGraphBackend
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.deploy.bundle.probes import make_probes
from loopdit.deploy.export.parity import backend_chunks, reference_chunks
from loopdit.policy.looped_policy import LoopedPolicy


def test_auto_prefers_what_has_been_in_use_longer():
    assert BACKEND_NAMES.index("cuda-graph") < BACKEND_NAMES.index("fused-cuda")


def on_gpu(policy: LoopedPolicy, loops: int, processors: int | None = None) -> np.ndarray:
    """The batch's chunks, with no more programs than `processors`; None for the GPU's own."""
    from loopdit.deploy.backends.fused.gpu_denoise import GpuDenoise

    most = processors or int(torch.cuda.get_device_properties().multi_processor_count)
    denoise = GpuDenoise(policy, torch.float32, "cuda", most)
    there = deepcopy(policy).to("cuda")
    given = {name: torch.from_numpy(value).cuda() for name, value in observations(policy).items()}
    noise = torch.from_numpy(noises(policy)).cuda()
    with torch.inference_mode():
        context = there.encode(given, loops)
        made = denoise(there, context, noise, denoise.prepared(len(noise), STEPS))
    return made.cpu().numpy()


@pytest.mark.gpu
@pytest.mark.parametrize("name", POLICIES)
def test_the_kernel_acts_as_the_trained_policy_does_at_every_depth(name: str):
    policy = random_policy(*POLICIES[name])
    for loops in policy.depths:
        found = on_gpu(policy, loops)
        assert largest_error(policy, found, expected(policy, loops)) < 1e-4


@pytest.mark.gpu
def test_how_many_programs_share_the_work_changes_no_bit_however_often_it_is_asked():
    policy = random_policy(*POLICIES["everything"])
    alone = on_gpu(policy, 2, processors=1)
    for _ in range(50):  # who meets too early does not do so each time
        np.testing.assert_array_equal(on_gpu(policy, 2), alone)


@pytest.mark.gpu
@pytest.mark.parametrize("batch", [1, 3, 15])
def test_a_captured_chunk_is_the_trained_policys_and_that_of_encode_and_denoise(
    tiny_bundle: Bundle, tiny_policy: LoopedPolicy, batch: int
):
    backend = load_backend(tiny_bundle, "fused-cuda")
    assert isinstance(backend, CudaGraphBackend)
    assert (backend.name, backend.device, backend.precision) == ("fused-cuda", "cuda", "fp32")
    probes = make_probes(tiny_bundle.spec, tiny_bundle.horizon, 15, seed=1)
    for loops in (1, 2):
        reference = reference_chunks(tiny_policy, probes, loops, STEPS)
        for _ in range(3):  # captured, then replayed
            found = backend_chunks(backend, probes, loops, STEPS, batch)
            assert np.abs(found - reference).max() < 1e-4 * np.abs(reference).max()
        observation, noise = probes.batch(0, batch)
        eager = backend.denoise(backend.encode(observation, loops), noise, STEPS)
        assert np.abs(eager - reference[:batch]).max() < 1e-4 * np.abs(reference).max()


@pytest.mark.gpu
def test_more_observations_than_multiprocessors_are_served(
    tiny_bundle: Bundle, tiny_policy: LoopedPolicy
):
    backend = load_backend(tiny_bundle, "fused-cuda")
    probes = make_probes(tiny_bundle.spec, tiny_bundle.horizon, 400, seed=2)
    reference = reference_chunks(tiny_policy, probes, 2, STEPS)
    found = backend_chunks(backend, probes, 2, STEPS, 400)
    assert np.abs(found - reference).max() < 1e-4 * np.abs(reference).max()


@pytest.mark.gpu
def test_weights_of_bfloat16_are_near_and_are_not_float32(
    tiny_bundle: Bundle, tiny_policy: LoopedPolicy
):
    backend = load_backend(tiny_bundle, "fused-cuda", precision="bf16")
    probes = make_probes(tiny_bundle.spec, tiny_bundle.horizon, 15, seed=1)
    reference = reference_chunks(tiny_policy, probes, 2, STEPS)
    error = np.abs(backend_chunks(backend, probes, 2, STEPS, 15) - reference).mean()
    assert 1e-5 < error / np.abs(reference).mean() < 0.2
