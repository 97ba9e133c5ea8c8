"""What is made of the torch module: in half the bits, compiled, and ready to be captured."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.policy.policies import SMALL, small_spec
from torch._dynamo.utils import counters

from loopdit.datasets.spec import COMMITTED
from loopdit.deploy.backends import load_backend
from loopdit.deploy.backends.registry import BackendOptions
from loopdit.deploy.backends.torch_compile_backend import TorchCompileBackend
from loopdit.deploy.backends.torch_policy import NOISE, StepByStep, torch_policy, whole_chunk
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.deploy.bundle.probes import Probes, make_probes
from loopdit.deploy.export.parity import backend_chunks, reference_chunks
from loopdit.policy.looped_dit_config import LoopedDiTConfig
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.policy.objectives.objective import ObjectiveConfig

STEPS = 3


@pytest.fixture(scope="module", autouse=True)
def torch_threads() -> Iterator[None]:
    """The torch back ends set them for the whole process; other tests want theirs back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def probes(tiny_bundle: Bundle) -> Probes:
    return make_probes(tiny_bundle.spec, tiny_bundle.horizon, 15, seed=1)


def compiles_and_acts_alike(
    backend: TorchCompileBackend, probes: Probes, policy: LoopedPolicy
) -> None:
    """And for several batches it compiles once."""
    torch._dynamo.reset()  # pyright: ignore[reportPrivateUsage] - else other tests are counted
    counters.clear()
    for loops in (1, 2):
        reference = reference_chunks(policy, probes, loops, STEPS)
        for batch in (1, 3, 5, 15):
            found = backend_chunks(backend, probes, loops, STEPS, batch)
            assert np.abs(found - reference).max() < 1e-5 * np.abs(reference).max()
    # encode and a step, at two depths, for one and for several
    assert counters["stats"]["unique_graphs"] == 8
    assert not counters["graph_break"]


@pytest.mark.system
def test_it_is_one_graph_for_one_and_one_for_every_larger_batch(
    tiny_bundle: Bundle, probes: Probes, tiny_policy: LoopedPolicy
):
    backend = TorchCompileBackend(tiny_bundle, BackendOptions(1), compiler="eager")
    compiles_and_acts_alike(backend, probes, tiny_policy)


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # by torch itself
@pytest.mark.slow
def test_compiled_code_acts_as_the_trained_policy_does(
    tiny_bundle: Bundle, probes: Probes, tiny_policy: LoopedPolicy
):
    backend = TorchCompileBackend(tiny_bundle, BackendOptions(1))
    compiles_and_acts_alike(backend, probes, tiny_policy)


def test_that_it_compiles_is_said_once_for_each_graph(
    tiny_bundle: Bundle, probes: Probes, caplog: pytest.LogCaptureFixture
):
    backend = TorchCompileBackend(tiny_bundle, BackendOptions(1), compiler="eager")
    for _ in range(2):
        backend_chunks(backend, probes, 1, STEPS)
    begun = [record.message for record in caplog.records if "compiling" in record.message]
    assert begun == [
        f"torch-compile: compiling {what} at K = 1 for a batch of one"
        for what in ("encode", "a step")
    ]


@pytest.mark.parametrize(("precision", "bits"), [("bf16", 8), ("fp16", 11)])
def test_half_the_bits_are_a_rounding_away_and_no_more(
    tiny_bundle: Bundle, probes: Probes, tiny_policy: LoopedPolicy, precision: str, bits: int
):
    policy = torch_policy(tiny_bundle, precision)
    for loops in (1, 2):
        reference = reference_chunks(tiny_policy, probes, loops, STEPS)
        error = np.abs(reference_chunks(policy, probes, loops, STEPS) - reference).mean()
        share = error / np.abs(reference).mean()
        # Of one rounding and of some tens, one in each layer of each loop and step.
        assert 0.05 * 2.0**-bits < share < 40 * 2.0**-bits


def test_cameras_are_encoded_in_float32_whatever_the_rest_is(
    tiny_bundle: Bundle, probes: Probes, tiny_policy: LoopedPolicy
):
    policy = torch_policy(tiny_bundle, "bf16")
    frames = torch.from_numpy(np.array(probes.observations["images.front"])).float()
    frames = (frames / 127.5 - 1).movedim(-1, 1)
    expected = tiny_policy.model.cameras[0](frames)
    torch.testing.assert_close(policy.model.cameras[0](frames), expected)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(policy.model.cameras[0](frames), expected)


def test_torch_offers_bf16(tiny_bundle: Bundle, probes: Probes, tiny_policy: LoopedPolicy):
    backend = load_backend(tiny_bundle, "torch", precision="bf16")
    reference = reference_chunks(tiny_policy, probes, 2, STEPS)
    error = np.abs(backend_chunks(backend, probes, 2, STEPS) - reference)
    assert 0 < error.mean() < 0.15 * np.abs(reference).mean()


LIFT, STACK = "lift the cube", "stack the cubes"


@pytest.mark.parametrize(
    "config",
    [
        replace(
            SMALL,
            instruction="words",
            instructions=[LIFT, STACK],
            in_flight=2,
            optional_cameras=True,
        ),
        replace(SMALL, objective=ObjectiveConfig("regression")),
        replace(SMALL, objective=ObjectiveConfig("flow", sampler="heun"), history=2),
        replace(SMALL, injection=True, encoder="pooled"),
    ],
    ids=["told everything", "regression", "heun", "injection"],
)
def test_a_whole_chunk_reads_nothing_from_the_host(config: LoopedDiTConfig):
    """On `meta`, where a tensor that is anywhere else cannot take part, as in a captured graph."""
    policy = LoopedPolicy(small_spec(cameras=2), config).eval().to("meta")
    given = {
        tensor.name: torch.zeros((1, *tensor.shape), dtype=getattr(torch, tensor.dtype)).to("meta")
        for tensor in policy.encode_inputs
    }
    if policy.spec.committed is not None:
        given[COMMITTED] = torch.zeros((1, *policy.spec.committed.shape), device="meta")
    chunk = (1, policy.horizon, policy.spec.action.shape[0])
    given[NOISE] = torch.zeros(chunk, device="meta")
    denoise = StepByStep("meta")
    made = whole_chunk(policy, given, 2, denoise.prepared(1, STEPS), denoise)
    assert (made.device.type, tuple(made.shape)) == ("meta", chunk)


def test_a_whole_chunk_is_encode_and_every_step(
    tiny_bundle: Bundle, probes: Probes, tiny_policy: LoopedPolicy
):
    observation, noise = probes.batch(0, 4)
    given = {name: torch.from_numpy(value) for name, value in observation.items()}
    given[NOISE] = torch.from_numpy(noise)
    denoise = StepByStep("cpu")
    with torch.inference_mode():
        made = whole_chunk(tiny_policy, given, 2, denoise.prepared(4, STEPS), denoise).numpy()
    expected = backend_chunks(load_backend(tiny_bundle, "torch"), probes, 2, STEPS, 4)[:4]
    np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.gpu
def test_a_captured_chunk_acts_as_the_trained_policy_does(
    tiny_bundle: Bundle, probes: Probes, tiny_policy: LoopedPolicy
):
    from loopdit.deploy.backends.protocol import WholeChunkBackend

    backend = load_backend(tiny_bundle, "cuda-graph")
    assert isinstance(backend, WholeChunkBackend)
    for loops in (1, 2):
        reference = reference_chunks(tiny_policy, probes, loops, STEPS)
        for _ in range(2):  # captured, then replayed
            for index in range(3):
                observation, noise = probes.batch(index, 5)
                found = backend.chunk(observation, loops, noise, STEPS)
                expected = reference[5 * index : 5 * index + 5]
                assert np.abs(found - expected).max() < 1e-4 * np.abs(reference).max()
