from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from tests.deploy.backends.tensorrt.graph_runs import OnnxRuntimeExecution, static_graph

from loopdit.deploy.backends.tensorrt.static_graph import TensorForm, read_static_graph
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.errors import BundleError

BATCH = 3


def some(form: TensorForm, generator: np.random.Generator) -> np.ndarray:
    if form.dtype == "uint8":
        return generator.integers(0, 256, form.shape, np.uint8)
    return generator.standard_normal(form.shape).astype(form.dtype)


@pytest.mark.parametrize("name", ["encode_k2.onnx", "denoise_k2.onnx"])
def test_the_edited_graph_computes_what_the_exported_one_does(tiny_bundle: Bundle, name: str):
    edited = static_graph(tiny_bundle, name, BATCH)
    generator = np.random.default_rng(0)
    given = {name: some(form, generator) for name, form in edited.inputs.items()}
    exported = onnxruntime.InferenceSession(str(tiny_bundle.path / name))
    made_by_it: list[Any] = list(exported.run(list(edited.outputs), given))
    expected: dict[str, np.ndarray] = dict(zip(edited.outputs, made_by_it, strict=True))
    made = {name: torch.empty(value.shape) for name, value in expected.items()}
    OnnxRuntimeExecution(edited).enqueue(
        {**{name: torch.from_numpy(value) for name, value in given.items()}, **made}
    )
    for output, value in expected.items():
        np.testing.assert_array_equal(made[output].numpy(), value)
        assert edited.outputs[output] == TensorForm("float32", value.shape)


def test_pictures_are_cast_before_anything_else(tiny_bundle: Bundle):
    graph = onnx.load_from_string(static_graph(tiny_bundle, "encode_k1.onnx").content).graph
    readers = [node for node in graph.node if "images.front" in node.input]
    assert [node.op_type for node in readers] == ["Cast"]


def test_softmax_is_not_guarded_against_what_never_happens(tmp_path: Path):
    floats = ("x", "y")
    given, made = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in floats
    )
    nodes = [
        helper.make_node("Softmax", ["x"], ["weights"]),
        helper.make_node("IsNaN", ["weights"], ["isnan"]),
        helper.make_node("Where", ["isnan", "zero", "weights"], ["guarded"]),
        helper.make_node("Relu", ["guarded"], ["y"]),
    ]
    zero = numpy_helper.from_array(np.zeros((), np.float32), "zero")
    onnx.save(
        helper.make_model(helper.make_graph(nodes, "g", [given], [made], [zero])),
        tmp_path / "guarded.onnx",
    )
    edited = read_static_graph(tmp_path / "guarded.onnx", 2, {"guarded.onnx": "0"})
    graph = onnx.load_from_string(edited.content).graph
    onnx.checker.check_model(onnx.load_from_string(edited.content))
    assert [node.op_type for node in graph.node] == ["Softmax", "Relu"]


def test_only_the_batch_may_be_free(tmp_path: Path):
    shape = ["batch", "tokens"]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [given], [made])
    path = tmp_path / "free.onnx"
    onnx.save(helper.make_model(graph), path)
    with pytest.raises(BundleError, match=r"x has the free axis 'tokens'.*Export"):
        read_static_graph(path, 1, {"free.onnx": "0"})


def test_other_weights_or_another_graph_are_another_digest(tiny_bundle: Bundle):
    digests = {name: entry.sha256 for name, entry in tiny_bundle.files.items()}
    path = tiny_bundle.path / "denoise_k1.onnx"

    def digest(**changed: str) -> str:
        return read_static_graph(path, 1, {**digests, **changed}).sha256

    assert digest() == digest(**{"encode_k1.onnx": "0"})  # another graph's file is not its own
    assert len({digest(), digest(**{"model.safetensors": "0"}), digest(**{path.name: "0"})}) == 3
