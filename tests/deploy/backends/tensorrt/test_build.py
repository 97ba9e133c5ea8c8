"""Engines built by TensorRT for RTX, whose parser and builder need no GPU."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.deploy.backends.tensorrt.graph_runs import ADA, HOPPER, graph_names, static_graph

from loopdit.deploy.backends.tensorrt.build import build_engine, builder_config
from loopdit.deploy.backends.tensorrt.library import TENSORRT, Library
from loopdit.deploy.backends.tensorrt.library_log import LibraryLog
from loopdit.deploy.backends.tensorrt.static_graph import (
    StaticGraph,
    make_static,
    read_static_graph,
)
from loopdit.deploy.bundle.bundle import Bundle, default_bundle
from loopdit.deploy.bundle.manifest import GRAPH_KINDS
from loopdit.errors import BundleError

_TYPES = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


def product(folder: Path, precision: str, nodes: Sequence[onnx.NodeProto] = ()) -> StaticGraph:
    """x (B, 8) float32 -> y (B, 8) float32, by a matrix of `precision` (and `nodes` after it)."""
    dtype = _TYPES[precision]
    weights = np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8)
    matrix = numpy_helper.from_array(
        weights.astype(helper.tensor_dtype_to_np_dtype(dtype)), "matrix"
    )
    chain = [
        helper.make_node("Cast", ["x"], ["low"], to=dtype),
        helper.make_node("MatMul", ["low", "matrix"], ["made"]),
        helper.make_node("Cast", ["made"], ["y"], to=TensorProto.FLOAT),
        *nodes,
    ]
    shape = ["batch", 8]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    made = helper.make_tensor_value_info(chain[-1].output[0], TensorProto.FLOAT, shape)
    graph = helper.make_graph(chain, "product", [given], [made], [matrix])
    path = folder / f"{precision}.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path)
    return read_static_graph(path, 2, {path.name: "0"})


def build_all(library: Library, bundle: Bundle, precision: str = "fp32", batch: int = 1) -> None:
    for name in graph_names(bundle, precision):
        engine = build_engine(library, static_graph(bundle, name, batch), precision, ADA).engine
        assert len(engine) > 100_000  # weights are in it


@pytest.mark.parametrize("batch", [1, 3])
def test_every_graph_of_a_bundle_becomes_an_engine(rtx: Library, tiny_bundle: Bundle, batch: int):
    build_all(rtx, tiny_bundle, batch=batch)


@pytest.mark.system
def test_every_graph_of_the_shipped_bundle_becomes_an_engine(rtx: Library):
    build_all(rtx, Bundle.open(default_bundle()))


@pytest.mark.system
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_masks_instructions_and_actions_in_flight_become_engines(
    rtx: Library, everything: Bundle, precision: str
):
    build_all(rtx, everything, precision)


def test_graphs_with_k_as_an_input_become_engines(rtx: Library, tiny_bundle: Bundle):
    # The back end takes the unrolled ones, which a CUDA graph can hold. These are for others.
    module, log = rtx.module, LibraryLog(rtx)
    for kind in GRAPH_KINDS:
        path = tiny_bundle.graph(kind, None)
        model = onnx.load(path, load_external_data=False)
        make_static(model.graph, 1)
        assert "Loop" in {node.op_type for node in model.graph.node}
        builder = module.Builder(log.native)
        network = rtx.network(builder)
        parser = module.OnnxParser(network, log.native)
        assert parser.parse(model.SerializeToString(), str(path)), log.reason()
        profile = builder.create_optimization_profile()
        for i in range(network.num_inputs):
            tensor = network.get_input(i)
            if tensor.is_shape_tensor:  # K itself: from 1 to 2, made for 2
                profile.set_shape_input(tensor.name, [1], [2], [2])
            elif -1 in tensor.shape:
                shapes = [[depth if n < 0 else n for n in tensor.shape] for depth in (1, 2, 2)]
                profile.set_shape(tensor.name, *shapes)
        config = builder_config(rtx, builder, ADA)
        config.add_optimization_profile(profile)
        assert builder.build_serialized_network(network, config) is not None, log.reason()


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_an_engine_is_of_the_precision_that_was_asked_for_or_none(
    rtx: Library, tmp_path: Path, precision: str
):
    graph = product(tmp_path, precision)
    build_engine(rtx, graph, precision, ADA)
    for other in _TYPES.keys() - {precision}:
        with pytest.raises(BundleError, match=f"asked for in {other} but has 64 {precision} weig"):
            build_engine(rtx, graph, other, ADA)


def test_float32_is_float32_and_no_shorter_format_in_disguise(rtx: Library):
    builder = rtx.module.Builder(LibraryLog(rtx).native)
    flag = rtx.module.BuilderFlag.TF32
    assert builder.create_builder_config().get_flag(flag)  # or there is nothing left to switch off
    assert not builder_config(rtx, builder, ADA).get_flag(flag)


def test_what_a_library_cannot_read_is_named_with_its_reason(rtx: Library, tmp_path: Path):
    strange = helper.make_node("Frobnicate", ["y"], ["z"], domain="nowhere")
    with pytest.raises(BundleError, match=r"cannot read .*fp32.onnx: .*Frobnicate.*backend="):
        build_engine(rtx, product(tmp_path, "fp32", [strange]), "fp32", ADA)


def test_weights_that_are_gone_are_an_error_and_no_crash(rtx: Library, bundle_copy: Path):
    graph = static_graph(Bundle.open(bundle_copy), "denoise_k1.onnx")
    (bundle_copy / "model.safetensors").unlink()
    with pytest.raises(BundleError, match=r"cannot read .*denoise_k1.onnx: .*model.safetensors"):
        build_engine(rtx, graph, "fp32", ADA)


def test_building_says_how_far_it_is(rtx: Library, tiny_bundle: Bundle):
    shares: list[float] = []
    graph = static_graph(tiny_bundle, "denoise_k1.onnx")
    build_engine(rtx, graph, "fp32", ADA, report=shares.append)
    assert len(shares) > 20
    assert shares == sorted(shares)
    assert 0 <= shares[0] < 0.1
    assert 0.5 < shares[-1] <= 1


def test_a_build_can_be_interrupted(rtx: Library, tiny_bundle: Bundle):
    def interrupt(share: float) -> None:
        raise KeyboardInterrupt

    graph = static_graph(tiny_bundle, "denoise_k1.onnx")
    with pytest.raises(KeyboardInterrupt):
        build_engine(rtx, graph, "fp32", ADA, report=interrupt)


def test_a_gpu_that_the_library_does_not_know_is_refused_with_those_it_does(rtx: Library):
    rtx.require_gpu(ADA)
    with pytest.raises(
        BundleError, match=r"H200 \(compute capability 9.0\).*7.5.*backend=tensorrt"
    ):
        rtx.require_gpu(HOPPER)


@pytest.mark.filterwarnings("ignore:Use Deprecated:DeprecationWarning")
def test_timings_of_one_build_are_taken_up_by_the_next(
    rtx: Library, tiny_bundle: Bundle, caplog: pytest.LogCaptureFixture
):
    # Full TensorRT does not install from PyPI: its way through the same API, which RTX still has.
    full = Library(TENSORRT, rtx.module)
    graph = static_graph(tiny_bundle, "denoise_k1.onnx")
    timings = build_engine(full, graph, "fp32", ADA).timings
    assert timings
    assert build_engine(full, graph, "fp32", ADA, timings).timings
    assert "refuses" not in caplog.text


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        ("Runtime", "deserialize_cuda_engine"),
        (
            "ICudaEngine",
            "num_io_tensors get_tensor_name get_tensor_dtype get_tensor_shape "
            "create_engine_inspector create_runtime_config create_execution_context",
        ),
        ("EngineInspector", "get_engine_information"),
        ("IRuntimeConfig", "create_runtime_cache set_runtime_cache"),
        ("IRuntimeCache", "serialize deserialize"),
        ("IExecutionContext", "set_tensor_address execute_async_v3 is_stream_capturable"),
    ],
)
def test_what_only_a_gpu_can_run_is_at_least_there(rtx: Library, owner: str, names: str):
    # So that a release which moves one of these is found without a GPU.
    found = getattr(rtx.module, owner)
    assert [name for name in names.split() if not hasattr(found, name)] == []
