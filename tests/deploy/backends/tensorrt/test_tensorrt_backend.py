"""The back end on the CPU: ONNX Runtime runs the very graphs that TensorRT is given."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from tests.deploy.backends.tensorrt.graph_runs import OnnxRuntimeExecution

from loopdit.deploy.backends import load_backend, registry
from loopdit.deploy.backends.protocol import WholeChunkBackend, run_chunk
from loopdit.deploy.backends.registry import BackendOptions
from loopdit.deploy.backends.tensorrt.backend import TensorRTBackend
from loopdit.deploy.backends.tensorrt.policy_run import Place
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.deploy.bundle.probes import Probes, make_probes
from loopdit.deploy.export.parity import backend_chunks, reference_chunks
from loopdit.errors import BundleError
from loopdit.policy.checkpoint import load_policy
from loopdit.policy.looped_policy import LoopedPolicy

STEPS = 5


def on_cpu(bundle: Bundle, precision: str = "fp32") -> TensorRTBackend:
    options = BackendOptions(1, precision)
    place = Place(torch.device("cpu"))
    return TensorRTBackend(bundle, options, "tensorrt", OnnxRuntimeExecution, place)


@pytest.fixture(scope="module")
def backend(tiny_bundle: Bundle) -> TensorRTBackend:
    return on_cpu(tiny_bundle)


@pytest.fixture(scope="module")
def probes(tiny_bundle: Bundle) -> Probes:
    return make_probes(tiny_bundle.spec, tiny_bundle.horizon, 5, seed=1)


def whole_chunks(backend: TensorRTBackend, probes: Probes, loops: int, batch: int) -> np.ndarray:
    pairs = (probes.batch(index, batch) for index in range(len(probes) // batch))
    return np.concatenate([run_chunk(backend, seen, loops, noise, STEPS) for seen, noise in pairs])


@pytest.mark.parametrize("loops", [1, 2])
@pytest.mark.parametrize("batch", [1, 5])
def test_it_acts_as_the_trained_policy_does(
    backend: TensorRTBackend, probes: Probes, tiny_policy: LoopedPolicy, loops: int, batch: int
):
    reference = reference_chunks(tiny_policy, probes, loops, STEPS)
    assert isinstance(backend, WholeChunkBackend)
    for found in (
        whole_chunks(backend, probes, loops, batch),
        backend_chunks(backend, probes, loops, STEPS, batch),
    ):
        assert np.abs(found - reference).max() < 1e-5 * np.abs(reference).max()


def test_a_chunk_is_the_same_again_and_does_not_touch_the_one_before(
    backend: TensorRTBackend, probes: Probes
):
    (one, noise), (other, _) = probes.batch(0, 1), probes.batch(1, 1)
    given = noise.copy()
    first = backend.chunk(one, 2, noise, STEPS)
    kept = first.copy()
    assert np.abs(backend.chunk(other, 2, noise, STEPS) - kept).max() > 0
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(backend.chunk(one, 2, noise, STEPS), kept)
    np.testing.assert_array_equal(noise, given)


def test_contexts_do_not_disturb_each_other(backend: TensorRTBackend, probes: Probes):
    (one, noise), (other, _) = probes.batch(0, 1), probes.batch(1, 1)
    expected = backend.denoise(backend.encode(one, 2), noise, STEPS)
    kept = backend.encode(one, 2)
    backend.encode(other, 2)
    np.testing.assert_array_equal(backend.denoise(kept, noise, STEPS), expected)
    np.testing.assert_array_equal(backend.denoise(kept, noise, STEPS), expected)


def test_more_kinds_of_chunk_than_it_keeps_ready_are_served_all_the_same(
    backend: TensorRTBackend, probes: Probes
):
    observation, noise = probes.batch(0, 1)
    expected = backend.chunk(observation, 1, noise, STEPS)
    for steps in range(1, 20):
        backend.chunk(observation, 1, noise, steps)
    np.testing.assert_array_equal(backend.chunk(observation, 1, noise, STEPS), expected)


def read_only_and_unaligned(value: np.ndarray) -> np.ndarray:
    """As a tensor inside a received message is."""
    return np.frombuffer(b"\0" + value.tobytes(), value.dtype, offset=1).reshape(value.shape)


@pytest.mark.parametrize("form", [read_only_and_unaligned, np.asfortranarray])
def test_arrays_will_do_however_they_lie_in_memory(
    backend: TensorRTBackend, probes: Probes, form: Callable[[np.ndarray], np.ndarray]
):
    observation, noise = probes.batch(0, 2)
    given = {name: form(value) for name, value in observation.items()}
    expected = backend.chunk(observation, 1, noise, STEPS)
    np.testing.assert_array_equal(backend.chunk(given, 1, form(noise), STEPS), expected)
    found = backend.denoise(backend.encode(given, 1), form(noise), STEPS)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.system
def test_masks_instructions_and_actions_in_flight_go_where_they_belong(everything: Bundle):
    manifest = everything.manifest
    said = manifest.instructions
    probes = make_probes(
        everything.spec, everything.horizon, 4, seed=2, tell=manifest.told, instructions=said
    )
    reference = reference_chunks(load_policy(everything.path), probes, 1, STEPS)
    backend = on_cpu(everything)
    for found in (whole_chunks(backend, probes, 1, 2), backend_chunks(backend, probes, 1, STEPS)):
        assert np.abs(found - reference).max() < 1e-5


def test_a_k_or_a_precision_that_was_not_exported_is_refused(tiny_bundle: Bundle, probes: Probes):
    observation, noise = probes.batch(0, 1)
    with pytest.raises(BundleError, match="loops=3 is not in this bundle"):
        on_cpu(tiny_bundle).chunk(observation, 3, noise, STEPS)
    with pytest.raises(BundleError, match="precision=fp16 is not in this bundle"):
        on_cpu(tiny_bundle, "fp16").chunk(observation, 1, noise, STEPS)


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx"])
def test_where_it_cannot_run_it_says_why(tiny_bundle: Bundle, name: str):
    if registry.KINDS[name].unavailable() is None:
        pytest.skip("it can run here")
    with pytest.raises(BundleError, match=rf"backend={name} cannot run here: .+ .+"):
        load_backend(tiny_bundle, name)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx"])
def test_engines_act_as_the_trained_policy_does(
    reduced_bundle: Bundle, probes: Probes, tiny_policy: LoopedPolicy, name: str, precision: str
):
    reason = registry.KINDS[name].unavailable()
    if reason is not None:
        pytest.skip(reason)
    backend = load_backend(reduced_bundle, name, precision=precision)
    assert isinstance(backend, TensorRTBackend)
    reference = reference_chunks(tiny_policy, probes, 2, STEPS)
    bound = {"fp32": 1e-5, "fp16": 0.02, "bf16": 0.1}[precision] * np.abs(reference).max()
    for found in (
        whole_chunks(backend, probes, 2, 1),
        backend_chunks(backend, probes, 2, STEPS, batch=5),
    ):
        assert np.abs(found - reference).max() < bound
