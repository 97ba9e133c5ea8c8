"""Which back end is loaded, and what is said where one cannot be."""

import logging
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.deploy.backends.general_backends import GENERAL

from loopdit.datasets.spec import Observation
from loopdit.deploy.backends import BACKEND_NAMES, load_backend
from loopdit.deploy.backends.cuda_driver import cuda_driver
from loopdit.deploy.backends.protocol import Context, run_chunk
from loopdit.deploy.backends.registry import FP32, KINDS
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.errors import BundleError, ConfigError

WITHOUT_GPU = pytest.mark.skipif(bool(cuda_driver().gpus), reason="says what a CPU alone has")

BF16 = pytest.mark.skipif(
    "avx512_bf16" not in Path("/proc/cpuinfo").read_text(), reason="needs a CPU with avx512_bf16"
)
OPENVINO = pytest.mark.skipif(
    "openvino" not in GENERAL, reason="needs openvino: pip install 'loopdit[openvino]'"
)


@pytest.fixture
def torch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where only torch is installed, and nothing compiles."""
    for module in ("onnxruntime", "openvino"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setenv("CXX", "no-such-compiler")


def test_an_unknown_back_end_is_refused_with_those_there_are(tiny_bundle: Bundle):
    with pytest.raises(ConfigError, match=r"backend=tensorflow .*auto, tensorrt, .*, torch"):
        load_backend(tiny_bundle, "tensorflow")


def test_a_precision_that_it_has_not_is_refused_with_those_that_have_it(tiny_bundle: Bundle):
    with pytest.raises(ConfigError, match=r"precision=int8 .*backend=torch .*onnxruntime"):
        load_backend(tiny_bundle, "torch", precision="int8")
    with pytest.raises(ConfigError, match=r"precision=fp12 .*None has it"):
        load_backend(tiny_bundle, "onnxruntime", precision="fp12")


def test_auto_is_float32_alone(tiny_bundle: Bundle):
    with pytest.raises(ConfigError, match=r"precision=bf16 .*auto.*float32 alone.*openvino"):
        load_backend(tiny_bundle, precision="bf16")


def test_graphs_of_a_precision_that_was_not_exported_are_refused(tiny_bundle: Bundle):
    with pytest.raises(BundleError, match="precision=fp16 is not in this bundle"):
        load_backend(tiny_bundle, "onnxruntime", precision="fp16")


@OPENVINO
@BF16
def test_a_lower_precision_may_be_further_from_the_witness_but_must_be_the_policy(
    tiny_bundle: Bundle,
):
    assert load_backend(tiny_bundle, "openvino", precision="bf16").precision == "bf16"
    witness = tiny_bundle.manifest.witness
    assert witness is not None
    backwards = replace(witness, actions=witness.actions[::-1])
    manifest = replace(tiny_bundle.manifest, witness=backwards)
    with pytest.raises(BundleError, match=r"openvino computes .* of their mean size"):
        load_backend(Bundle(tiny_bundle.path, manifest), "openvino", precision="bf16")


@WITHOUT_GPU
def test_auto_takes_the_first_that_runs_here(tiny_bundle: Bundle, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO):
        found = load_backend(tiny_bundle).name
    assert found == ("onnxruntime" if KINDS["fused"].unavailable() else "fused")
    assert "cuda-graph is passed over: no NVIDIA driver" in caplog.text
    # No surprise on a machine without a GPU, and so no warning.
    assert all(record.levelno < logging.WARNING for record in caplog.records)


@WITHOUT_GPU
@pytest.mark.usefixtures("torch_alone")
def test_auto_says_what_it_passes_over(tiny_bundle: Bundle, caplog: pytest.LogCaptureFixture):
    assert load_backend(tiny_bundle).name == "torch"
    assert "onnxruntime is passed over: onnxruntime is not installed here" in caplog.text
    with pytest.raises(BundleError, match=r"backend=onnxruntime cannot run here.*pip install"):
        load_backend(tiny_bundle, "onnxruntime")


@WITHOUT_GPU
def test_auto_moves_on_from_one_that_is_installed_and_broken(
    bundle_copy: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("CXX", "no-such-compiler")
    bundle = Bundle.open(bundle_copy)
    (bundle_copy / "encode_k2.onnx").write_bytes(b"no graph")  # what only torch does not read
    assert load_backend(bundle).name == "torch"
    assert "onnxruntime is passed over" in caplog.text
    assert "encode_k2.onnx" in caplog.text


@WITHOUT_GPU
def test_where_nothing_runs_every_reason_is_said(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CXX", "no-such-compiler")
    witness = tiny_bundle.manifest.witness
    assert witness is not None
    manifest = replace(tiny_bundle.manifest, witness=replace(witness, tolerance=-1.0))
    reasons = r"fused: needs a C\+\+ compiler.* onnxruntime: .* differ by .* torch: .* differ by"
    with pytest.raises(BundleError, match=reasons):
        load_backend(Bundle(tiny_bundle.path, manifest))


@pytest.mark.parametrize("name", BACKEND_NAMES)
def test_float32_is_what_each_computes_where_nobody_chooses(name: str):
    assert KINDS[name].precisions[0] == FP32


@pytest.mark.parametrize("name", BACKEND_NAMES)
def test_what_is_missing_is_said_before_anything_is_imported(name: str, tiny_bundle: Bundle):
    reason = KINDS[name].unavailable()
    if reason is None:
        pytest.skip(f"{name} runs here")
    with pytest.raises(BundleError, match=rf"backend={name} cannot run here"):
        load_backend(tiny_bundle, name)


class InOneGo:
    """A back end that has both ways, and tells them apart by what they give."""

    name, device, precision, threads = "in one go", "cpu", FP32, 1

    def encode(self, observation: Observation, loops: int) -> Context:
        return Context(loops, len(observation["proprio"]), {})

    def denoise(self, context: Context, noise: np.ndarray, steps: int) -> np.ndarray:
        return noise

    def chunk(
        self, observation: Observation, loops: int, noise: np.ndarray, steps: int
    ) -> np.ndarray:
        return noise + loops + steps


def test_a_chunk_in_one_go_is_taken_where_there_is_one(tiny_bundle: Bundle):
    noise = np.zeros((1, 4, 2), np.float32)
    assert (run_chunk(InOneGo(), {"proprio": noise}, 2, noise, 3) == 5).all()


@pytest.mark.parametrize("name", GENERAL)
def test_a_chunk_in_two_parts_is_the_same_chunk(name: str, tiny_bundle: Bundle):
    backend = load_backend(tiny_bundle, name)
    observation = {t.name: np.ones((1, *t.shape), t.dtype) for t in tiny_bundle.spec.observations}
    noise = np.ones((1, 4, 2), np.float32)
    expected = backend.denoise(backend.encode(observation, 2), noise, 3)
    np.testing.assert_array_equal(run_chunk(backend, observation, 2, noise, 3), expected)
