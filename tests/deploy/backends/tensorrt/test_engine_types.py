import json
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from loopdit.deploy.backends.tensorrt.engine_types import (
    layer_types,
    require_precision,
    require_tensors,
)
from loopdit.deploy.backends.tensorrt.static_graph import TensorForm
from loopdit.errors import BundleError

TAKES = {"images": TensorForm("uint8", (1, 8, 8, 3)), "t": TensorForm("float32", (1,))}
MAKES = {"actions": TensorForm("float32", (1, 4, 2))}


def description(*types: str, field: str = "Format/Datatype") -> str:
    """What an engine inspector says of layers that read tensors of these types."""
    layers = [{"Name": "half of bf16", "Inputs": [{"Name": "x", field: said}]} for said in types]
    return json.dumps({"Layers": layers, "Bindings": ["x"]})


@pytest.mark.parametrize(
    ("said", "dtype"),
    [
        ("Half", "fp16"),
        ("Channel major FP16 format where channel % 8 == 0", "fp16"),
        ("BFloat16", "bf16"),
        ("Row major linear BF16 format", "bf16"),
        ("Float", "fp32"),
        ("Row major linear FP32 format (kLINEAR)", "fp32"),
        ("Int8", "int8"),
        ("Row major linear INT8 format", "int8"),
        ("FP8", "fp8"),
    ],
)
def test_the_words_of_every_version_are_understood(said: str, dtype: str):
    assert layer_types(description(said)) == {dtype}
    assert layer_types(description(said, field="DataType")) == {dtype}


def test_pictures_indices_and_names_are_no_precision():
    assert (
        layer_types(description("UInt8", "Row major linear UINT8 format", "Int64", "Bool")) == set()
    )


def test_weights_count_as_well_as_tensors():
    layers = [{"Name": "convolution", "Weights": {"Type": "Half", "Count": 864}}]
    assert layer_types(json.dumps({"Layers": layers})) == {"fp16"}


@pytest.mark.parametrize("lower", ["Half", "BFloat16", "Int8", "FP8"])
def test_nothing_lower_may_be_in_a_float32_engine(lower: str):
    require_precision(description("Float", "Int32"), "fp32", "denoise_k1")
    with pytest.raises(BundleError, match=r"denoise_k1 computes in .* where float32 was asked for"):
        require_precision(description("Float", lower), "fp32", "denoise_k1")


def test_a_lower_precision_that_the_engine_does_not_have_is_not_believed():
    require_precision(description("Float", "Half"), "fp16", "denoise_k1")
    for found in (description("Float"), description("BFloat16"), description()):
        with pytest.raises(BundleError, match="nowhere computes in fp16"):
            require_precision(found, "fp16", "denoise_k1")


def test_an_engine_that_says_nothing_is_not_believed():
    with pytest.raises(BundleError, match="denoise_k1 does not say what it computes in"):
        require_precision("no JSON", "fp32", "denoise_k1")


@dataclass
class SaidEngine:
    """The part of TensorRT's ICudaEngine that says what it takes and makes."""

    tensors: dict[str, tuple[str, tuple[int, ...]]]

    @property
    def num_io_tensors(self) -> int:
        return len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name=self.tensors[name][0])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name][1]


FAITHFUL: dict[str, tuple[str, tuple[int, ...]]] = {
    "images": ("UINT8", (1, 8, 8, 3)),
    "t": ("FLOAT", (1,)),
    "actions": ("FLOAT", (1, 4, 2)),
}


def test_an_engine_takes_and_makes_what_its_graph_does():
    require_tensors(SaidEngine(FAITHFUL), TAKES, MAKES, "denoise_k1")
    unused = {name: said for name, said in FAITHFUL.items() if name != "t"}
    require_tensors(SaidEngine(unused), TAKES, MAKES, "denoise_k1")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("t", ("HALF", (1,))),  # a type chosen by the builder
        ("images", ("UINT8", (2, 8, 8, 3))),  # another batch
        ("strange", ("FLOAT", (1,))),
        ("actions", None),
    ],
)
def test_any_other_tensor_is_refused(name: str, said: tuple[str, tuple[int, ...]] | None):
    tensors = {key: value for key, value in FAITHFUL.items() if key != name}
    if said is not None:
        tensors[name] = said
    with pytest.raises(BundleError, match=f"the engine of denoise_k1 has {name} as"):
        require_tensors(SaidEngine(tensors), TAKES, MAKES, "denoise_k1")
