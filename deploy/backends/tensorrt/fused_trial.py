"""Whether TensorRT builds our node here and computes the bundle's witness with it.

    python -m loopdit.deploy.backends.tensorrt.fused_trial BUNDLE

A process of its own, because what fails inside the library may end its process, and a kernel that
waits for ever would never end (TensorRT for RTX 1.7.1 ends it at any plugin in Python). What it has
proven is kept beside the engines, so that it is tried once for each engine.

Not yet run on a GPU; the tests run other programs in its place.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from loopdit.deploy.backends import require_witness
from loopdit.deploy.backends.tensorrt import fused_parts
from loopdit.deploy.backends.tensorrt.engine_store import EngineStore
from loopdit.deploy.backends.tensorrt.keyed_file import read_keyed, write_keyed
from loopdit.deploy.backends.tensorrt.static_graph import StaticGraph
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.errors import BundleError, LoopditError

_TIMEOUT_S = 900.0  # an engine takes a minute to build, Triton's kernel ten seconds
_PROVEN = "proven"


def trial_command(bundle: Path) -> list[str]:
    """This module as a program."""
    return [sys.executable, "-m", __name__, str(bundle)]


def require_trial(
    store: EngineStore, graph: StaticGraph, command: Sequence[str], timeout_s: float = _TIMEOUT_S
) -> None:
    """Run `command` unless it has ended well before, for the engine of `graph` in `store`.

    Raises BundleError, with what it said last, where it does not end well.
    """
    path, key = store.path(graph, _PROVEN), store.key(graph)
    if read_keyed(path, key) is not None:
        return
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        raise BundleError(f"its trial did not end within {timeout_s:g} s.") from error
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise BundleError(f"its trial ended with status {done.returncode}: {last[0]}")
    write_keyed(path, key, b"")


def main() -> None:
    """See the module; status 1 and the reason where it is not so."""
    try:
        bundle = Bundle.open(sys.argv[1])
        parts = fused_parts(bundle)
        require_witness(parts.make(parts.graphs()), bundle)
    except LoopditError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
