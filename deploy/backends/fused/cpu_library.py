"""The C++ kernels as a shared library: compiled once for this CPU, kept, and called by ctypes.

A library is kept in the user's cache folder under a key of the sources, the options and all that
the compiler says of itself and of this CPU (its predefined macros). So another compiler, or another
CPU on the same home folder, makes its own. It is compiled aside and renamed, by one process at a
time.
"""

import ctypes
import fcntl
import hashlib
import logging
import os
import platform
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from loopdit.cache_folder import cache_folder
from loopdit.deploy.backends.registry import cpp_compiler
from loopdit.errors import BundleError
from loopdit.whole_file import whole_file

logger = logging.getLogger(__name__)

_FOLDER = Path(__file__).resolve().parent
_SOURCE = "cpu.cpp"
# x86 compilers know this CPU as -march=native, others as -mcpu=native. No -ffast-math: it would
# reorder the rounding tricks of the exponential, and infinities mean "masked".
_CPU = "-march=native" if platform.machine() in ("x86_64", "AMD64") else "-mcpu=native"
COMPILE_OPTIONS = ("-std=c++20", "-O3", _CPU, "-ffp-contract=fast", "-fPIC", "-shared")
_TIMEOUT_S = 300


class Sizes(ctypes.Structure):
    """Mirrors Sizes in cpu.cpp: a policy's sizes and precision."""

    _fields_ = [
        (name, ctypes.c_int32)
        for name in (
            *("width", "hidden", "blocks", "action_blocks", "loops", "history", "cameras"),
            *("encoder", "detail", "proprio", "instruction", "horizon", "group", "actions"),
            *("injection", "bfloat16"),
        )
    ]


@cache
def cpu_library() -> ctypes.CDLL:
    """The library, compiled if it is not kept yet. Raises BundleError where that cannot be."""
    compiler = cpp_compiler()
    if compiler is None:
        raise BundleError(
            "backend=fused needs a C++ compiler. Install g++ or clang++, or name one in CXX."
        )
    return _declared(load_library(compiler, cache_folder("kernels")))


def load_library(compiler: str, folder: Path) -> ctypes.CDLL:
    """The library of this compiler, kept in `folder`. Raises BundleError as `cpu_library` does."""
    path = folder / f"cpu-{_key(compiler)}.so"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(folder / "lock"):
            if not path.is_file():
                _compile(compiler, path)
            try:
                return ctypes.CDLL(str(path))
            except OSError as error:  # damaged on the disk
                logger.warning("%s does not load (%s); compiling it again", path, error)
                _compile(compiler, path)
                return ctypes.CDLL(str(path))
    except OSError as error:
        raise BundleError(
            f"backend=fused cannot keep its compiled kernels in {folder}: {error}. Free space "
            f"there, or name another folder in LOOPDIT_CACHE."
        ) from error


def _key(compiler: str) -> str:
    """16 hex digits of everything that the library depends on."""
    digest = hashlib.sha256(repr(COMPILE_OPTIONS).encode())
    for source in sorted([*_FOLDER.glob("*.hpp"), _FOLDER / _SOURCE]):
        digest.update(source.read_bytes())
    digest.update(_run([compiler, _CPU, "-dM", "-E", "-x", "c++", os.devnull]))
    return digest.hexdigest()[:16]


def _compile(compiler: str, path: Path) -> None:
    began = time.monotonic()
    with whole_file(path) as aside:
        _run([compiler, *COMPILE_OPTIONS, str(_FOLDER / _SOURCE), "-o", str(aside)])
    logger.info("compiled %s in %.1f s", path, time.monotonic() - began)


def _run(command: list[str]) -> bytes:
    """What a compiler prints. Raises BundleError with what it says where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, check=True, timeout=_TIMEOUT_S)
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or b"").decode(errors="replace").strip()
        raise BundleError(
            f"backend=fused: {command[0]} cannot compile its kernels: {said or error!s:.300}. It "
            f"needs C++20: g++ 11 or clang++ 14, or newer; name another compiler in CXX."
        ) from error
    return done.stdout


@contextmanager
def _one_at_a_time(lock: Path) -> Generator[None]:
    """Wait for other processes that compile. The kernel frees the lock when its holder dies."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    """With the types of cpu.cpp's functions; every pointer is an address."""
    address, number = ctypes.c_void_p, ctypes.c_int
    functions: dict[str, tuple[Any, list[Any]]] = {
        "fused_has_bfloat16": (number, []),
        "fused_create": (address, [ctypes.POINTER(Sizes), address, address]),
        "fused_destroy": (None, [address]),
        "fused_context_floats": (ctypes.c_int64, [address, number]),
        "fused_encode": (None, [*[address] * 5, number, address]),
        "fused_denoise": (
            None,
            [address, address, number, address, address, number, *[address] * 5],
        ),
    }
    for name, (result, arguments) in functions.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
