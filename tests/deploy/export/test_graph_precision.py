from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopdit.deploy.bundle.bundle import Bundle
from loopdit.deploy.bundle.manifest import GRAPH_KINDS, weights_name
from loopdit.deploy.bundle.probes import make_probes
from loopdit.deploy.export.graph_parity import prove
from loopdit.deploy.export.graph_precision import quantized
from loopdit.deploy.export.graph_runner import GraphRunner
from loopdit.policy.checkpoint import load_policy
from loopdit.policy.looped_policy import LoopedPolicy

REDUCED = ("fp16", "bf16", "int8")
TYPES = {"fp16": "FLOAT16", "bf16": "BFLOAT16", "int8": "INT8"}
# Of a product's result; int8's is float32.
PRODUCT = {"fp16": "FLOAT16", "bf16": "BFLOAT16", "int8": "FLOAT"}
# The spacing of the numbers of each, to which weights and what is multiplied are rounded.
SPACING = {"fp32": 2.0**-23, "fp16": 2.0**-10, "bf16": 2.0**-7, "int8": 1 / 127}
ROUGHNESS = 30  # many roundings, in a policy of random weights


def _model(bundle: Bundle, kind: str, loops: int | None, precision: str) -> onnx_ir.Model:
    return onnx_ir.load(bundle.graph(kind, loops, precision))


@pytest.mark.parametrize("precision", REDUCED)
@pytest.mark.parametrize("loops", [2, None])
def test_the_precision_is_in_the_graphs_own_types_and_not_in_its_interface(
    reduced_bundle: Bundle, precision: str, loops: int | None
):
    for kind in GRAPH_KINDS:
        model, whole = (_model(reduced_bundle, kind, loops, p) for p in (precision, "fp32"))
        for name in ("inputs", "outputs"):
            ours, theirs = (getattr(m.graph, name) for m in (model, whole))
            assert [(v.name, v.dtype) for v in ours] == [(v.name, v.dtype) for v in theirs]
        products = [n for n in model.graph.all_nodes() if n.op_type == "MatMul"]
        assert products
        made = {n.outputs[0].dtype.name for n in products if n.outputs[0].dtype is not None}
        assert PRODUCT[precision] in made
        stored = {
            value.const_value.dtype.name
            for value in model.graph.initializers.values()
            if isinstance(value.const_value, onnx_ir.ExternalTensor)
            and value.const_value.location == weights_name(precision)
        }
        assert TYPES[precision] in stored
        onnx.checker.check_model(reduced_bundle.graph(kind, loops, precision), full_check=True)


@pytest.mark.parametrize("precision", REDUCED)
def test_the_weights_of_a_precision_are_stored_once_for_all_its_graphs(
    reduced_bundle: Bundle, precision: str
):
    places: dict[tuple[int | None, int | None], str] = {}
    for name in reduced_bundle.manifest.graph_names(precision):
        for value in onnx_ir.load(reduced_bundle.path / name).graph.initializers.values():
            tensor = value.const_value
            if not isinstance(tensor, onnx_ir.ExternalTensor):
                assert tensor is not None
                assert tensor.nbytes < 1000  # constants
            elif tensor.location == weights_name(precision):
                key = (tensor.offset, tensor.length)
                assert places.setdefault(key, str(value.name)) == value.name
    assert len(places) > 10
    size = reduced_bundle.files[weights_name(precision)].bytes
    # Beside them there is the header; nothing is left out, and nothing is there twice.
    assert 0 <= size - sum(length or 0 for _, length in places) < 150 * len(places)
    share = {"fp16": 0.5, "bf16": 0.5, "int8": 0.3}[precision]
    assert size < share * reduced_bundle.files["model.safetensors"].bytes


def test_every_graph_is_as_near_to_the_trained_policy_as_its_precision_allows(
    reduced_bundle: Bundle, tiny_policy: LoopedPolicy
):
    probes = make_probes(reduced_bundle.spec, reduced_bundle.horizon, 8, seed=0)
    spread = float(tiny_policy.normalizer.action_spread.max())
    proofs = prove(reduced_bundle, tiny_policy, probes, 3, dict.fromkeys(SPACING, 1e-3))
    assert [proof.precision for proof in proofs] == list(reduced_bundle.precisions)
    errors: dict[str, float] = {}
    for proof in proofs:
        bound = ROUGHNESS * SPACING[proof.precision] * spread
        assert [row.graph for row in proof.graphs] == reduced_bundle.manifest.graph_names(
            proof.precision
        )
        for row in (*proof.graphs, *proof.rows, *proof.counted_rows):
            assert 0 < row.max_abs_error < bound, (proof.precision, row)
        errors[proof.precision] = max(row.mean_abs_error for row in proof.rows)
    assert errors["fp32"] < errors["fp16"] < errors["bf16"]
    assert errors["fp16"] < errors["int8"]


def test_openvino_reads_every_graph(reduced_bundle: Bundle):
    openvino = pytest.importorskip("openvino", reason="pip install 'loopdit[openvino]'")
    core = openvino.Core()
    for precision in reduced_bundle.precisions:
        for name in reduced_bundle.manifest.graph_names(precision):
            core.compile_model(str(reduced_bundle.path / name), "CPU")


def test_a_weight_that_is_off_by_a_thousandth_shows_in_the_graphs_that_read_it(
    tiny_bundle: Bundle, tiny_checkpoint: Path
):
    off = load_policy(tiny_checkpoint)
    off.model.action_out.bias.add_(1e-3)
    probes = make_probes(tiny_bundle.spec, tiny_bundle.horizon, 4, seed=0)
    (proof,) = prove(tiny_bundle, off, probes, 3, {"fp32": 1e-4})
    errors = {row.graph: row.max_abs_error for row in proof.graphs}
    assert all((error > 1e-4) == ("denoise" in graph) for graph, error in errors.items()), errors
    assert min(row.max_abs_error for row in (*proof.rows, *proof.counted_rows)) > 1e-4


def test_k_as_an_input_is_the_depth_that_is_run(reduced_bundle: Bundle):
    probes = make_probes(reduced_bundle.spec, reduced_bundle.horizon, 3, seed=1)
    counted, unrolled = (GraphRunner(reduced_bundle, "fp32", c) for c in (True, False))
    chunks = [counted.chunks(probes.observations, probes.noise, k, 3) for k in (1, 2)]
    for k, chunk in zip((1, 2), chunks, strict=True):
        expected = unrolled.chunks(probes.observations, probes.noise, k, 3)
        np.testing.assert_allclose(chunk, expected, atol=2e-5)
    assert np.abs(chunks[0] - chunks[1]).max() > 1e-2


@given(
    st.integers(1, 5),
    st.integers(1, 7),
    st.integers(0, 1),
    st.integers(0, 2**32 - 1),
)
def test_whole_numbers_are_within_half_a_step_of_their_weights(
    rows: int, columns: int, axis: int, seed: int
):
    weight = np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)
    weight[0] = 0
    whole, scale = quantized(weight, axis)
    along = scale[:, None] if axis == 0 else scale
    assert np.abs(whole).max() <= 127
    assert (np.abs(whole * along - weight) <= 0.5001 * along).all()
    assert not whole[0].any()
