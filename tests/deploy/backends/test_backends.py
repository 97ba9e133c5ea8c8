import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from tests.deploy.backends.general_backends import GENERAL

from loopdit.deploy.backends import Backend, load_backend
from loopdit.deploy.backends.onnxruntime_backend import enough_memory
from loopdit.deploy.bundle.bundle import Bundle, file_entry
from loopdit.deploy.bundle.probes import Probes, make_probes
from loopdit.deploy.bundle.writer import write_manifest
from loopdit.deploy.export.parity import backend_chunks, reference_chunks
from loopdit.errors import BundleError, ConfigError, OutOfMemory
from loopdit.policy.looped_policy import LoopedPolicy

STEPS = 5


@pytest.fixture(scope="module", autouse=True)
def torch_threads() -> Iterator[None]:
    """The torch back end sets them for the whole process; other tests want theirs back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=GENERAL)
def backend(tiny_bundle: Bundle, request: pytest.FixtureRequest) -> Backend:
    return load_backend(tiny_bundle, request.param)


@pytest.fixture(scope="module")
def probes(tiny_bundle: Bundle) -> Probes:
    return make_probes(tiny_bundle.spec, tiny_bundle.horizon, 5, seed=1)


@pytest.mark.parametrize("loops", [1, 2])
def test_a_back_end_acts_as_the_trained_policy_does(
    backend: Backend, probes: Probes, tiny_policy: LoopedPolicy, loops: int
):
    reference = reference_chunks(tiny_policy, probes, loops, STEPS)
    found = backend_chunks(backend, probes, loops, STEPS)
    assert np.abs(found - reference).max() < 1e-5 * np.abs(reference).max()
    # The other depth's graph, or an unused input, would not pass for this one.
    other = reference_chunks(tiny_policy, probes, 3 - loops, STEPS)
    assert np.abs(found - other).max() > 1e-2 * np.abs(reference).max()


def test_a_batch_is_its_observations_one_by_one(backend: Backend, probes: Probes):
    single = backend_chunks(backend, probes, 2, STEPS, batch=1)
    together = backend_chunks(backend, probes, 2, STEPS, batch=5)
    np.testing.assert_allclose(together, single, rtol=1e-4, atol=1e-5)


def test_one_context_serves_several_chunks(backend: Backend, probes: Probes):
    observation, noise = probes.batch(0, 1)
    context = backend.encode(observation, 2)
    first = backend.denoise(context, noise, STEPS)
    backend.denoise(context, -noise, STEPS)
    np.testing.assert_array_equal(backend.denoise(context, noise, STEPS), first)


def test_contexts_do_not_disturb_each_other(backend: Backend, probes: Probes):
    one, noise = probes.batch(0, 1)
    other, _ = probes.batch(1, 1)
    expected = backend.denoise(backend.encode(one, 2), noise, STEPS)
    kept = backend.encode(one, 2)
    backend.encode(other, 2)
    np.testing.assert_array_equal(backend.denoise(kept, noise, STEPS), expected)


def test_the_noise_it_is_given_stays_as_it_was(backend: Backend, probes: Probes):
    observation, noise = probes.batch(0, 1)
    before = noise.copy()
    backend.denoise(backend.encode(observation, 1), noise, STEPS)
    np.testing.assert_array_equal(noise, before)


def test_tensors_inside_a_received_message_will_do(backend: Backend, probes: Probes):
    observation, noise = probes.batch(0, 1)
    expected = backend.denoise(backend.encode(observation, 1), noise, STEPS)
    received = {
        # Read-only, and starting at an odd byte.
        name: np.frombuffer(b"\0" + value.tobytes(), value.dtype, offset=1).reshape(value.shape)
        for name, value in observation.items()
    }
    found = backend.denoise(backend.encode(received, 1), noise, STEPS)
    np.testing.assert_array_equal(found, expected)


def test_a_k_that_was_not_exported_is_refused(backend: Backend, probes: Probes):
    observation, _ = probes.batch(0, 1)
    with pytest.raises(BundleError, match="loops=3 is not in this bundle"):
        backend.encode(observation, 3)


def test_a_bundle_overwritten_in_use_is_not_mixed_with_the_one_that_was_opened(
    bundle_copy: Path, probes: Probes
):
    backend = load_backend(Bundle.open(bundle_copy), "onnxruntime")
    observation, _ = probes.batch(0, 1)
    with (bundle_copy / "model.safetensors").open("ab") as weights:
        weights.write(b"\0")
    backend.encode(observation, 2)  # the default K is loaded, and stays as it was
    with pytest.raises(BundleError, match=r"model.safetensors is truncated or altered"):
        backend.encode(observation, 1)


@pytest.mark.parametrize("name", GENERAL)
def test_a_back_end_that_computes_something_else_is_not_loaded(tiny_bundle: Bundle, name: str):
    witness = tiny_bundle.manifest.witness
    assert witness is not None
    assert load_backend(tiny_bundle, name).name == name
    # As if the policy had been trained with code that does the same a little differently.
    actions = tuple(tuple(value + 2e-4 for value in row) for row in witness.actions)
    manifest = replace(tiny_bundle.manifest, witness=replace(witness, actions=actions))
    with pytest.raises(BundleError, match=rf"{name} computes actions that differ by 0.0002.*again"):
        load_backend(Bundle(tiny_bundle.path, manifest), name)


def test_a_runtime_without_memory_left_says_what_to_do():
    """A real failure of its allocator, which is the same on a GPU."""
    size = helper.make_tensor_value_info("size", TensorProto.INT64, [1])
    largest = helper.make_tensor_value_info("largest", TensorProto.FLOAT, [])
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["zeros"]),
        helper.make_node("ReduceMax", ["zeros"], ["largest"], keepdims=0),
    ]
    graph = helper.make_graph(nodes, "large", [size], [largest])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    with pytest.raises(OutOfMemory, match="smaller batch"), enough_memory():
        session.run(None, {"size": np.array([10**15])})
    with pytest.raises(ValueError, match="size"), enough_memory():  # another error stays itself
        session.run(None, {})


@pytest.mark.parametrize(
    ("opset", "dtype", "said"), [(99, None, "[Oo]pset"), (20, TensorProto.BFLOAT16, "bfloat16")]
)
def test_a_graph_of_another_opset_or_type_than_the_runtime_has_is_refused_with_the_remedy(
    tiny_bundle: Bundle, tmp_path: Path, opset: int, dtype: int | None, said: str
):
    folder = Path(shutil.copytree(tiny_bundle.path, tmp_path / "bundle"))
    path = folder / "encode_k1.onnx"
    if dtype is None:
        model = onnx.load(path, load_external_data=False)
        model.opset_import[0].version = opset
    else:
        value = helper.make_tensor_value_info("x", dtype, [4])
        made = helper.make_tensor_value_info("y", dtype, [4])
        node = helper.make_node("Cosh", ["x"], ["y"])
        graph = helper.make_graph([node], "g", [value], [made])
        opsets = [helper.make_opsetid("", opset)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.save(model, path)
    files = {**tiny_bundle.files, path.name: file_entry(path)}
    write_manifest(folder, replace(tiny_bundle.manifest, files=files))
    backend = load_backend(Bundle.open(folder), "onnxruntime")
    observation, _ = make_probes(tiny_bundle.spec, tiny_bundle.horizon, 1, seed=0).batch(0, 1)
    with pytest.raises(BundleError, match=rf"cannot load .*encode_k1.*{said}.*Use backend=torch"):
        backend.encode(observation, 1)


def test_threads_are_what_was_asked_for(tiny_bundle: Bundle):
    assert load_backend(tiny_bundle, "torch", threads=2).threads == 2
    assert torch.get_num_threads() == 2
    with pytest.raises(ConfigError, match="threads=0"):
        load_backend(tiny_bundle, threads=0)


def test_the_onnx_graphs_run_without_torch_onnx_or_zarr(tiny_bundle: Bundle):
    script = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'zarr'): sys.modules[name] = None\n"
        "from loopdit.deploy.backends import load_backend\n"
        "from loopdit.deploy.bundle.bundle import Bundle\n"
        "from loopdit.deploy.serving.served_bundle import ServedBundle\n"
        f"bundle = Bundle.open({str(tiny_bundle.path)!r})\n"
        "ServedBundle(bundle, load_backend(bundle)).warm_up()\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
