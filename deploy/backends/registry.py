"""The back ends there are, in the order in which `auto` tries them, and whether each can run here.

Whether one can run is asked without importing its runtime, which takes seconds and memory: by what
is installed, what the CUDA driver says and which programs there are. So it may be optimistic;
loading and the bundle's witness have the last word. A new back end is a module with
`load(bundle, options)` and an entry of KINDS.
"""

import importlib
import os
import shutil
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import cast

from loopdit.deploy.backends.cuda_driver import cuda_driver
from loopdit.deploy.backends.protocol import Backend
from loopdit.deploy.bundle.bundle import Bundle

FP32 = "fp32"


@dataclass(frozen=True)
class BackendOptions:
    """How a back end is to compute. threads: CPU threads that share one operation, at least 1."""

    threads: int
    precision: str = FP32


# Makes a back end; raises BundleError, with the remedy, where it cannot run this bundle here.
Loader = Callable[[Bundle, BackendOptions], Backend]


@dataclass(frozen=True)
class BackendKind:
    """One back end by its name.

    module: where it is, imported only when it is chosen. precisions: those it has, the default
    first. devices: where it computes. missing: why it cannot run on this machine and what to do
    about it, None where it can. loader: the function of `module` that makes it.
    """

    name: str
    module: str
    precisions: tuple[str, ...]
    devices: tuple[str, ...]
    missing: Callable[[], str | None]
    loader: str = "load"

    def load(self, bundle: Bundle, options: BackendOptions) -> Backend:
        """Import it and make it ready; see `Loader`."""
        loader = cast(Loader, getattr(importlib.import_module(self.module), self.loader))
        return loader(bundle, options)

    def unavailable(self) -> str | None:
        """`missing`, or that this installation has no such module."""
        if not _is_importable(self.module):
            return "it is not built into this version of loopdit"
        return self.missing()


def _is_importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a parent of it
        return False


def _not_installed(module: str, install: str) -> str | None:
    if find_spec(module) is None:
        return f"{module} is not installed here. Install it with: pip install {install}"
    return None


def _torch_missing() -> str | None:
    return _not_installed("torch", "'loopdit[serve]'")


def _onnxruntime_missing() -> str | None:
    return _not_installed("onnxruntime", "'loopdit[serve]'")


def _openvino_missing() -> str | None:
    return _not_installed("openvino", "'loopdit[openvino]'")


def _gpu_missing() -> str | None:
    problem = cuda_driver().problem
    return problem and f"{problem}. It needs an NVIDIA GPU and its driver"


def _library_missing(module: str, library: str, remedy: str) -> str | None:
    """Whether an installed package has the shared library of its GPU half."""
    spec = find_spec(module)
    folders = [Path(folder) for folder in (spec and spec.submodule_search_locations) or ()]
    if any((folder / library).is_file() for folder in folders):
        return None
    return f"the {module} that is installed is its CPU build. {remedy}"


def _cuda_graph_missing() -> str | None:
    remedy = "PyPI's build for Linux has CUDA: pip install --force-reinstall torch"
    return (
        _torch_missing()
        or _gpu_missing()
        or _library_missing("torch", "lib/libtorch_cuda.so", remedy)
    )


def _fused_cuda_missing() -> str | None:
    """Triton compiles its own launcher, in C, at its first use."""
    missing = _cuda_graph_missing() or _not_installed("triton", "'loopdit[fused-cuda]'")
    if missing is None and not any(map(shutil.which, (os.environ.get("CC", "gcc"), "clang"))):
        missing = "needs a C compiler: install gcc or clang, or name one in CC"
    return missing or _python_headers_missing()


def _onnxruntime_cuda_missing() -> str | None:
    remedy = "Replace it: pip uninstall onnxruntime, then pip install onnxruntime-gpu"
    return (
        _onnxruntime_missing()
        or _gpu_missing()
        or _library_missing("onnxruntime", "capi/libonnxruntime_providers_cuda.so", remedy)
    )


def _onnxruntime_tensorrt_missing() -> str | None:
    return _onnxruntime_cuda_missing() or _not_installed("tensorrt", "tensorrt")


def _tensorrt_missing() -> str | None:
    return _gpu_missing() or _not_installed("tensorrt", "tensorrt")


def _tensorrt_rtx_missing() -> str | None:
    return _gpu_missing() or _not_installed("tensorrt_rtx", "'loopdit[tensorrt-rtx]'")


def cpp_compiler() -> str | None:
    """The C++ compiler's path: what CXX names, else the first of g++, clang++ and c++."""
    named = os.environ.get("CXX")
    names = (named,) if named else ("g++", "clang++", "c++")
    return next((found for name in names if (found := shutil.which(name))), None)


def _compiler_missing() -> str | None:
    if cpp_compiler() is None:
        return "needs a C++ compiler: install g++ or clang++, or name one in CXX"
    return None


def _fused_missing() -> str | None:
    return _torch_missing() or _compiler_missing()


def _python_headers_missing() -> str | None:
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.is_file():
        return f"needs Python's headers ({header} is not there): install python3-dev"
    return None


def _torch_compile_missing() -> str | None:
    return _torch_missing() or _compiler_missing() or _python_headers_missing()


def _kind(
    name: str,
    module: str,
    precisions: tuple[str, ...],
    device: str,
    missing: Callable[[], str | None],
    loader: str = "load",
) -> BackendKind:
    path = f"loopdit.deploy.backends.{module}"
    return BackendKind(name, path, precisions, (device,), missing, loader)


_GRAPH_PRECISIONS = (FP32, "fp16", "bf16", "int8")  # those that a bundle may have graphs of

# What computes on a GPU is first: who has one wants it used. On the CPU the fastest in float32 is:
# CPU time of a chunk of a policy of width 128, 10 steps, one thread, p50 of 200 in ms at K = 1 and
# 4, visited in random order (one process each, an AVX-512 CPU, 2026-11-28):
#     fused 0.45, 1.20   onnxruntime 1.91, 3.81   openvino 2.20, 3.42   torch 6.79, 15.4
# onnxruntime is before openvino, because it is installed with `serve` and they do not differ much.
KINDS: dict[str, BackendKind] = {
    kind.name: kind
    for kind in (
        _kind("tensorrt", "tensorrt", (FP32, "fp16", "bf16"), "cuda", _tensorrt_missing),
        _kind(
            "tensorrt-rtx",
            "tensorrt",
            (FP32, "fp16", "bf16"),
            "cuda",
            _tensorrt_rtx_missing,
            "load_rtx",
        ),
        _kind(
            "cuda-graph", "cuda_graph_backend", (FP32, "fp16", "bf16"), "cuda", _cuda_graph_missing
        ),
        # After cuda-graph, because its kernel has not been measured: docs/fused.md.
        _kind("fused-cuda", "fused.gpu_backend", (FP32, "bf16"), "cuda", _fused_cuda_missing),
        _kind(
            "onnxruntime-tensorrt",
            "onnxruntime_backend",
            _GRAPH_PRECISIONS,
            "cuda",
            _onnxruntime_tensorrt_missing,
            "load_tensorrt",
        ),
        _kind(
            "onnxruntime-cuda",
            "onnxruntime_backend",
            _GRAPH_PRECISIONS,
            "cuda",
            _onnxruntime_cuda_missing,
            "load_cuda",
        ),
        _kind("fused", "fused.cpu_backend", (FP32, "bf16"), "cpu", _fused_missing),
        _kind(
            "onnxruntime",
            "onnxruntime_backend",
            (FP32, "fp16", "int8"),  # it has no bf16 products on a CPU (1.32)
            "cpu",
            _onnxruntime_missing,
        ),
        _kind("openvino", "openvino_backend", (FP32, "bf16"), "cpu", _openvino_missing),
        _kind("torch", "torch_backend", (FP32, "bf16"), "cpu", _torch_missing),
        # Never by `auto`, since it needs torch: it compiles for half a minute at each K.
        _kind(
            "torch-compile", "torch_compile_backend", (FP32, "bf16"), "cpu", _torch_compile_missing
        ),
    )
}
