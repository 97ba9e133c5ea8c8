"""All steps as one node, on the CPU: ONNX's reference implementation runs the very graph that
TensorRT is given, with the trained module in the place of our kernel, whose numbers are those of
`backends/fused/test_gpu_kernel.py`."""

import logging
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx.external_data_helper import load_external_data_for_model
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from tests.deploy.backends.tensorrt.graph_runs import ADA, OnnxRuntimeExecution
from torch import Tensor

from loopdit.deploy.backends import registry
from loopdit.deploy.backends.protocol import run_chunk
from loopdit.deploy.backends.registry import BackendOptions
from loopdit.deploy.backends.tensorrt.backend import TensorRTBackend
from loopdit.deploy.backends.tensorrt.engine import Execution
from loopdit.deploy.backends.tensorrt.engine_store import EngineStore
from loopdit.deploy.backends.tensorrt.fused_denoise import (
    FusedGraph,
    FusedGraphs,
    fused_graphs,
    fused_or_stepped,
)
from loopdit.deploy.backends.tensorrt.fused_trial import require_trial, trial_command
from loopdit.deploy.backends.tensorrt.library import Library
from loopdit.deploy.backends.tensorrt.policy_run import Place
from loopdit.deploy.backends.tensorrt.static_graph import StaticGraph
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.deploy.bundle.probes import Probes, make_probes
from loopdit.deploy.export.fused_graph import DOMAIN, NODE
from loopdit.deploy.export.parity import backend_chunks, reference_chunks
from loopdit.errors import BundleError
from loopdit.policy.looped_policy import LoopedPolicy

pytestmark = pytest.mark.system  # each graph takes seconds to trace

Ready = Callable[[StaticGraph], Execution]


class ReferenceExecution:
    """An `Execution` of a graph with our node, by ONNX's reference implementation."""

    def __init__(self, graph: StaticGraph, policy: LoopedPolicy, error: float) -> None:
        self.graph = graph
        model = onnx.load_from_string(graph.content)
        load_external_data_for_model(model, str(graph.path.parent))

        class FusedDenoise(OpRun):
            op_domain = DOMAIN

            @torch.inference_mode()
            def _run(self, *inputs: np.ndarray, **attributes: int) -> tuple[np.ndarray, np.ndarray]:
                noise, keys, values = (torch.from_numpy(np.array(one)) for one in inputs[:3])
                context = policy.context(keys, values, None, None)
                assert len(keys) == attributes["loops"] * attributes["blocks"]
                steps, sample = attributes["steps"], noise
                for i in range(steps):
                    at = torch.full((len(noise),), i / steps)
                    sample = policy.denoise_step(
                        sample, at, torch.full_like(at, 1 / steps), context
                    )
                return (sample + error).numpy(), sample.numpy()

        self._evaluator = ReferenceEvaluator(model, new_ops=[FusedDenoise])

    def enqueue(self, tensors: Mapping[str, Tensor]) -> None:
        given = {name: tensors[name].numpy() for name in self.graph.inputs}
        names = list(self.graph.outputs)
        made: Any = self._evaluator.run(names, given)
        for name, value in zip(names, made, strict=True):
            tensors[name].numpy()[...] = value

    def is_capturable(self) -> bool:
        return True


def executions(policy: LoopedPolicy, ran: list[str], error: float = 0.0) -> Ready:
    """What makes them; `ran` gets the name of each graph that is made ready."""

    def ready(graph: StaticGraph) -> Execution:
        ran.append(graph.name)
        if "fused" in graph.name:
            return ReferenceExecution(graph, policy, error)
        return OnnxRuntimeExecution(graph)

    return ready


def on_cpu(bundle: Bundle, ready: Ready, fused: FusedGraph | None) -> TensorRTBackend:
    place = Place(torch.device("cpu"))
    return TensorRTBackend(bundle, BackendOptions(1), "tensorrt", ready, place, fused)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("graphs")


@pytest.fixture(scope="module")
def graphs(tiny_bundle: Bundle, folder: Path) -> FusedGraphs:
    return FusedGraphs(tiny_bundle, folder)


@pytest.fixture(scope="module")
def probes(tiny_bundle: Bundle) -> Probes:
    return make_probes(tiny_bundle.spec, tiny_bundle.horizon, 3, seed=1)


def test_a_chunk_is_two_graphs_and_the_trained_policys(
    tiny_bundle: Bundle, graphs: FusedGraphs, probes: Probes, tiny_policy: LoopedPolicy
):
    ran: list[str] = []
    backend = on_cpu(tiny_bundle, executions(tiny_policy, ran), graphs)
    for loops in tiny_bundle.loops:
        reference = reference_chunks(tiny_policy, probes, loops, tiny_bundle.steps)
        whole = run_chunk(backend, *probes.batch(0, 3)[:1], loops, probes.noise, tiny_bundle.steps)
        parts = backend_chunks(backend, probes, loops, tiny_bundle.steps)
        for found in (whole, parts):
            assert np.abs(found - reference).max() < 1e-5 * np.abs(reference).max()
    assert set(ran) == {"encode_k1", "encode_k2", "denoise_fused_k1_s3", "denoise_fused_k2_s3"}


def test_another_number_of_steps_goes_step_by_step(
    tiny_bundle: Bundle, graphs: FusedGraphs, probes: Probes, tiny_policy: LoopedPolicy
):
    ran: list[str] = []
    backend = on_cpu(tiny_bundle, executions(tiny_policy, ran), graphs)
    reference = reference_chunks(tiny_policy, probes, 2, 5)
    observation, noise = probes.batch(0, 3)
    found = backend.chunk(observation, 2, noise, 5)
    assert np.abs(found - reference).max() < 1e-5 * np.abs(reference).max()
    assert ran == ["encode_k2", "denoise_k2"]
    # What one way has encoded, the other denoises.
    context = backend.encode(observation, 2)
    assert np.abs(backend.denoise(context, noise, 5) - reference).max() < 1e-5 * np.abs(found).max()


def test_a_graph_is_traced_once_and_again_where_it_is_damaged(
    graphs: FusedGraphs, folder: Path, caplog: pytest.LogCaptureFixture
):
    graph = graphs(1, 1)
    (kept,) = (path for path in folder.iterdir() if path.name.startswith("denoise_fused_k1_s3"))
    before = kept.stat().st_mtime_ns
    assert graphs(1, 1).sha256 == graph.sha256
    assert kept.stat().st_mtime_ns == before
    kept.write_bytes(kept.read_bytes()[:-1])
    assert graphs(1, 1).sha256 == graph.sha256
    assert "is damaged" in caplog.text


def test_its_graph_has_the_node_the_batch_and_the_bundles_weights(
    graphs: FusedGraphs, tiny_bundle: Bundle
):
    graph = graphs(2, 3)
    model = onnx.load_from_string(graph.content)
    assert [node.op_type for node in model.graph.node if node.domain == DOMAIN] == [NODE]
    assert {form.shape[0] for name, form in graph.inputs.items() if name == "sample"} == {3}
    assert graph.inputs.keys() == {"sample", "keys", "values"}
    assert graph.path.parent == tiny_bundle.path
    assert not graph.path.exists()


def test_an_engine_of_it_is_of_its_k_its_batch_and_its_weights(
    rtx: Library, graphs: FusedGraphs, tiny_bundle: Bundle, tmp_path: Path
):
    store = EngineStore(rtx, ADA, "fp32", tmp_path)
    retrained = {
        name: replace(entry, sha256=entry.sha256[::-1]) if name.endswith("safetensors") else entry
        for name, entry in tiny_bundle.files.items()
    }
    manifest = replace(tiny_bundle.manifest, files=retrained)
    other = FusedGraphs(replace(tiny_bundle, manifest=manifest), tmp_path)
    slower = FusedGraphs(
        replace(tiny_bundle, manifest=replace(tiny_bundle.manifest, steps=4)), tmp_path
    )
    variants = [graphs(2, 1), graphs(1, 1), graphs(2, 3), other(2, 1), slower(2, 1)]
    paths = [store.path(graph, "engine") for graph in variants]
    assert len(set(paths)) == len(variants)
    assert store.path(graphs(2, 1), "engine") == paths[0]


def test_where_it_computes_the_witness_it_is_used(
    tiny_bundle: Bundle,
    graphs: FusedGraphs,
    tiny_policy: LoopedPolicy,
    caplog: pytest.LogCaptureFixture,
):
    ran: list[str] = []
    ready = executions(tiny_policy, ran)
    fused_or_stepped(lambda fused: on_cpu(tiny_bundle, ready, fused), tiny_bundle, lambda: graphs)
    assert ran == ["encode_k2", "denoise_fused_k2_s3"]
    assert not caplog.records


@pytest.mark.parametrize("failing", ["numbers", "engine", "graph"])
def test_where_it_fails_the_same_back_end_goes_step_by_step_and_says_why(
    tiny_bundle: Bundle,
    graphs: FusedGraphs,
    tiny_policy: LoopedPolicy,
    probes: Probes,
    caplog: pytest.LogCaptureFixture,
    failing: str,
):
    ran: list[str] = []
    right = executions(tiny_policy, ran, error=0.1 if failing == "numbers" else 0.0)

    def ready(graph: StaticGraph) -> Execution:
        if failing == "engine" and "fused" in graph.name:
            raise BundleError("the library refuses its engine.")
        return right(graph)

    def made() -> FusedGraph:
        if failing == "graph":
            raise BundleError("there is no such node.")
        return graphs

    with caplog.at_level(logging.WARNING):
        backend = fused_or_stepped(
            lambda fused: on_cpu(tiny_bundle, ready, fused), tiny_bundle, made
        )
    why = {"numbers": "differ by", "engine": "refuses its engine", "graph": "no such node"}
    (record,) = caplog.records
    assert "tensorrt denoises step by step" in record.getMessage()
    assert why[failing] in record.getMessage()
    ran.clear()
    observation, noise = probes.batch(0, 1)
    found = backend.chunk(observation, 1, noise, tiny_bundle.steps)
    reference = reference_chunks(tiny_policy, probes, 1, tiny_bundle.steps)[:1]
    assert np.abs(found - reference).max() < 1e-5 * np.abs(reference).max()
    assert ran == ["encode_k1", "denoise_k1"]


def test_a_gpu_that_triton_does_not_know_has_no_such_node(
    rtx: Library, tiny_bundle: Bundle, tmp_path: Path
):
    turing = replace(ADA, name="NVIDIA T4", compute_capability=(7, 5))
    with pytest.raises(BundleError, match=r"needs compute capability 8\.0, and NVIDIA T4 has 7\.5"):
        fused_graphs(tiny_bundle, rtx, turing, tmp_path)


def trial(*words: str) -> list[str]:
    return [sys.executable, "-c", *words]


def test_a_trial_that_ends_well_is_not_repeated(rtx: Library, graphs: FusedGraphs, tmp_path: Path):
    store = EngineStore(rtx, ADA, "fp32", tmp_path)
    written = tmp_path / "tried"
    count = f"open({str(written)!r}, 'a').write('x')"
    for graph in (graphs(2, 1), graphs(2, 1), graphs(1, 1)):  # another engine, another trial
        require_trial(store, graph, trial(count))
    assert written.read_text() == "xx"


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import os; os.abort()", "ended with status -6"),
        ("import sys; sys.exit('no such plugin')", "status 1: no such plugin"),
        ("import time; time.sleep(60)", "did not end within 1 s"),
    ],
)
def test_a_trial_that_crashes_fails_or_hangs_leaves_this_process_alone(
    rtx: Library, graphs: FusedGraphs, tmp_path: Path, program: str, said: str
):
    store = EngineStore(rtx, ADA, "fp32", tmp_path)
    patience_s = 1 if "sleep" in program else 60
    for _ in range(2):  # a failure is tried again: a driver may have been mended
        with pytest.raises(BundleError, match=said):
            require_trial(store, graphs(1, 1), trial(program), patience_s)


def test_the_trial_itself_says_why_there_is_none_without_a_gpu(tiny_bundle: Bundle):
    if registry.KINDS["tensorrt"].unavailable() is None:
        pytest.skip("it can run here")
    done = subprocess.run(trial_command(tiny_bundle.path), capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("backend=tensorrt needs a GPU that torch can use")
