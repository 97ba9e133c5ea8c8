import onnx
import pytest

from loopdit.deploy.bundle.bundle import Bundle
from loopdit.deploy.bundle.manifest import GRAPH_KINDS
from loopdit.policy.looped_policy import LoopedPolicy

EXTERNAL = onnx.TensorProto.EXTERNAL


Graphs = dict[tuple[str, int | None], onnx.ModelProto]


@pytest.fixture(scope="module")
def graphs(tiny_bundle: Bundle) -> Graphs:
    """Each kind at each K, and at None with K as an input."""
    return {
        (kind, k): onnx.load(tiny_bundle.graph(kind, k), load_external_data=False)
        for kind in GRAPH_KINDS
        for k in (*tiny_bundle.loops, None)
    }


def _weights_of(graph: onnx.ModelProto) -> dict[tuple[int, int], str]:
    """{(offset, length) in the weights file: name} of all that the graph takes from it."""
    found: dict[tuple[int, int], str] = {}
    for tensor in graph.graph.initializer:
        if tensor.data_location == EXTERNAL:
            place = {entry.key: entry.value for entry in tensor.external_data}
            assert place["location"] == "model.safetensors"
            key = (int(place["offset"]), int(place["length"]))
            assert key not in found, f"{tensor.name} is {found[key]} again"
            found[key] = tensor.name
    return found


def test_no_weight_is_stored_twice(tiny_bundle: Bundle, graphs: Graphs):
    for name, graph in graphs.items():
        inside = sum(
            len(tensor.raw_data)
            for tensor in graph.graph.initializer
            if tensor.data_location != EXTERNAL
        )
        assert inside < 2000, name
    weights = tiny_bundle.files["model.safetensors"].bytes
    # What a graph costs is its nodes: the same for a policy of any width.
    assert tiny_bundle.bytes < weights + 60_000 * len(graphs)


def test_a_deeper_graph_takes_no_more_weights_than_a_shallow_one(
    graphs: Graphs,
):
    assert set(_weights_of(graphs["denoise", 2])) == set(_weights_of(graphs["denoise", 1]))
    # Encoding ends with the keys and values of its last loop: one loop leaves out the rest of it.
    assert set(_weights_of(graphs["encode", 2])) > set(_weights_of(graphs["encode", 1]))


def test_the_graphs_between_them_take_every_weight(graphs: Graphs, tiny_policy: LoopedPolicy):
    taken = {place for graph in graphs.values() for place in _weights_of(graph)}
    sizes = sorted(tensor.nbytes for tensor in tiny_policy.state_dict().values())
    # Equal tensors (an empty bias twice) may share one place; here none are equal.
    assert sorted(length for _, length in taken) == sizes


def test_the_interface_is_raw_observations_in_and_raw_actions_out_for_any_batch(
    graphs: Graphs,
):
    def shapes(values: list[onnx.ValueInfoProto]) -> dict[str, list[int | str]]:
        return {
            value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
            for value in values
        }

    encode, denoise = graphs["encode", 2].graph, graphs["denoise", 2].graph
    assert shapes(list(encode.input)) == {
        "images.front": ["batch", 32, 32, 3],
        "proprio": ["batch", 2],
    }
    assert encode.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert shapes(list(encode.output)).keys() == {"keys", "values"}
    assert list(shapes(list(denoise.input))) == ["sample", "t", "dt", "keys", "values"]
    assert shapes(list(denoise.output)) == {
        "next_sample": ["batch", 4, 2],
        "actions": ["batch", 4, 2],
    }


def test_the_graphs_are_valid_onnx_of_the_promised_opset(tiny_bundle: Bundle, graphs: Graphs):
    for (kind, k), graph in graphs.items():
        onnx.checker.check_model(tiny_bundle.graph(kind, k), full_check=True)
        assert {entry.domain: entry.version for entry in graph.opset_import} == {"": 20}


def test_no_path_of_the_exporting_machine_is_in_a_graph(tiny_bundle: Bundle):
    for kind in GRAPH_KINDS:
        for k in (*tiny_bundle.loops, None):
            content = tiny_bundle.graph(kind, k).read_bytes()
            assert b".py" not in content
            assert b"loopdit/" not in content


def test_one_graph_with_k_as_an_input_takes_what_the_deepest_takes_and_loops_once(graphs: Graphs):
    for kind in GRAPH_KINDS:
        counted, deepest = graphs[kind, None], graphs[kind, 2]
        assert _weights_of(counted).keys() == _weights_of(deepest).keys()
        given = [value.name for value in counted.graph.input]
        assert given == [*(value.name for value in deepest.graph.input), "loops"]
        assert [node.op_type for node in counted.graph.node].count("Loop") == 1
        names = [value.name for value in counted.graph.output]
        assert names == [value.name for value in deepest.graph.output]
