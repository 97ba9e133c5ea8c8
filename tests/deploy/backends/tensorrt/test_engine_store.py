"""Engines of TensorRT for RTX, built and kept without a GPU."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tests.deploy.backends.tensorrt.graph_runs import ADA, BLACKWELL, static_graph

from loopdit.deploy.backends.tensorrt.engine_store import EngineStore
from loopdit.deploy.backends.tensorrt.library import TENSORRT, Library
from loopdit.deploy.backends.tensorrt.static_graph import StaticGraph
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.errors import BundleError


@pytest.fixture(scope="module")
def graph(tiny_bundle: Bundle) -> StaticGraph:
    return static_graph(tiny_bundle, "denoise_k1.onnx")


@pytest.fixture(scope="module")
def built(rtx: Library, graph: StaticGraph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with one engine, to copy and damage."""
    folder = tmp_path_factory.mktemp("engines")
    EngineStore(rtx, ADA, "fp32", folder).serialized(graph)
    return folder


@pytest.fixture
def store(rtx: Library, built: Path, tmp_path: Path) -> EngineStore:
    return EngineStore(rtx, ADA, "fp32", Path(shutil.copytree(built, tmp_path / "engines")))


def test_an_engine_is_built_once(
    store: EngineStore, graph: StaticGraph, capfd: pytest.CaptureFixture[str]
):
    path = store.path(graph, "engine")
    before = path.stat().st_mtime_ns
    assert path.read_bytes().endswith(store.serialized(graph))
    assert path.stat().st_mtime_ns == before
    assert capfd.readouterr().err == ""


def test_building_is_shown(
    store: EngineStore, graph: StaticGraph, capfd: pytest.CaptureFixture[str]
):
    store.path(graph, "engine").unlink()
    store.serialized(graph)
    printed = capfd.readouterr()
    assert "builds denoise_k1 (fp32) for NVIDIA RTX 4090 100%" in printed.err
    assert printed.out == ""


def test_a_damaged_engine_is_built_again(
    store: EngineStore, graph: StaticGraph, caplog: pytest.LogCaptureFixture
):
    path = store.path(graph, "engine")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    store.serialized(graph)
    assert "is damaged" in caplog.text
    caplog.clear()
    store.serialized(graph)
    assert not caplog.text


def test_an_engine_of_another_gpu_is_never_taken_for_this_ones(
    rtx: Library, store: EngineStore, graph: StaticGraph, caplog: pytest.LogCaptureFixture
):
    other = EngineStore(rtx, BLACKWELL, "fp32", store.folder)
    assert not other.path(graph, "engine").exists()
    # As if somebody had copied the file to where this machine looks for its own.
    shutil.copyfile(store.path(graph, "engine"), other.path(graph, "engine"))
    engine = other.serialized(graph)
    assert "is of compute_capability=8.9, wanted is 12.0; it is made again" in caplog.text
    assert engine != store.serialized(graph)


def test_whatever_an_engine_depends_on_gives_it_another_name(
    rtx: Library, store: EngineStore, graph: StaticGraph, tiny_bundle: Bundle
):
    later = Library(rtx.name, SimpleNamespace(__version__=f"{rtx.version}.1"))
    folder = store.folder
    others = [
        EngineStore(rtx, BLACKWELL, "fp32", folder),
        EngineStore(rtx, ADA, "bf16", folder),
        EngineStore(later, ADA, "fp32", folder),
        EngineStore(Library(TENSORRT, rtx.module), ADA, "fp32", folder),
    ]
    paths = {str(other.path(graph, "engine")) for other in (store, *others)}
    for other in ("denoise_k2.onnx", "encode_k1.onnx"):
        paths.add(str(store.path(static_graph(tiny_bundle, other), "engine")))
    paths.add(str(store.path(static_graph(tiny_bundle, "denoise_k1.onnx", batch=2), "engine")))
    assert len(paths) == 8


@pytest.mark.filterwarnings("ignore:Use Deprecated:DeprecationWarning")
def test_timings_are_kept_for_the_next_engine(
    rtx: Library, tiny_bundle: Bundle, graph: StaticGraph, tmp_path: Path
):
    # Full TensorRT's way through the same API: it is not on PyPI, and RTX times nothing.
    store = EngineStore(Library(TENSORRT, rtx.module), ADA, "fp32", tmp_path)
    store.serialized(graph)
    (timings,) = tmp_path.glob("*.timings")
    store.serialized(static_graph(tiny_bundle, "denoise_k1.onnx", batch=2))
    assert list(tmp_path.glob("*.timings")) == [timings]
    assert len(list(tmp_path.glob("*.engine"))) == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="where there is a GPU the engine runs")
def test_an_engine_that_cannot_be_loaded_is_built_again_once_and_then_an_error(
    store: EngineStore, graph: StaticGraph, caplog: pytest.LogCaptureFixture
):
    with pytest.raises(BundleError, match=r"refuses denoise_k1: .*driver.* built .* just now"):
        store.execution(graph)
    assert "it is built again" in caplog.text
