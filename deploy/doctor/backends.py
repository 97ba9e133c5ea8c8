"""What `policy-doctor` says of the bundle and of each back end: a real chunk where it runs.

Each back end computes in a process of its own, because a broken runtime may end its process, and
because thread pools of several runtimes in one disturb each other.
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from loopdit.deploy.backends import load_backend
from loopdit.deploy.backends.protocol import run_chunk
from loopdit.deploy.backends.registry import KINDS, BackendKind
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.deploy.bundle.witness import witness_inputs
from loopdit.deploy.doctor.finding import BROKEN, NOTE, OK, Finding
from loopdit.errors import LoopditError

# They compile or build engines first, for minutes: tried when they are named.
SLOW = ("tensorrt", "tensorrt-rtx", "onnxruntime-tensorrt", "torch-compile")
_CHUNKS = 5
_TIMEOUT_S = 900.0


def bundle_finding(path: str) -> tuple[Finding, Bundle | None]:
    """Whether the bundle opens, which verifies its files; and the bundle where it does."""
    try:
        bundle = Bundle.open(path)
    except LoopditError as error:
        return Finding("bundle", BROKEN, str(error)), None
    loops = ", ".join(map(str, bundle.loops))
    said = f"model {bundle.model_id}, K = {loops}, {bundle.bytes / 1e6:.1f} MB, its files verified"
    return Finding("bundle", OK, said), bundle


def backend_findings(bundle: Bundle, names: Sequence[str]) -> list[Finding]:
    """One finding for each back end, and one for whether `auto` finds any.

    `names` are those to try; where there are none, all that are ready at once.
    """
    found = [_finding(kind, bundle, names) for kind in KINDS.values()]
    running = [finding.check for finding in found if finding.state == OK]
    if running:
        return [*found, Finding("backend=auto", OK, f"takes {running[0]}")]
    remedy = "See the reasons above; the least is: pip install 'loopdit[serve]'"
    return [*found, Finding("backend=auto", BROKEN, "no back end that was tried runs", remedy)]


def _finding(kind: BackendKind, bundle: Bundle, names: Sequence[str]) -> Finding:
    reason = kind.unavailable()
    if reason is not None:
        return Finding(kind.name, NOTE, reason)
    if kind.name not in names if names else kind.name in SLOW:
        why = "it compiles or builds first, for minutes" if not names else "it was not named"
        remedy = f"Try it: policy-doctor backends=[{kind.name}]"
        return Finding(kind.name, NOTE, f"may run here; not tried, because {why}", remedy)
    command = [sys.executable, "-m", "loopdit.deploy.doctor.backends", kind.name, str(bundle.path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return Finding(kind.name, NOTE, f"no chunk in {_TIMEOUT_S:g} s", "Use another back end.")
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        said = f"its process ended with status {done.returncode}: {last[0]}"
        return Finding(kind.name, NOTE, said, "Use another back end, or install its runtime again.")
    facts = json.loads(done.stdout.splitlines()[-1])
    if "reason" in facts:
        return Finding(kind.name, NOTE, facts["reason"])
    said = (
        f"a chunk at K = {facts['loops']}, {facts['steps']} steps in {facts['chunk_ms']:.2f} ms "
        f"({facts['device']}, {facts['threads']} thread(s)); ready after {facts['ready_s']:.1f} s"
    )
    return Finding(kind.name, OK, said)


def try_backend(name: str, path: str) -> dict[str, Any]:
    """Load it, which proves it against the bundle's witness, and time a few chunks: p50, ms.

    {"reason": ...} where it cannot.
    """
    began = time.perf_counter()
    try:
        bundle = Bundle.open(path)
        backend = load_backend(bundle, name)
        told = bundle.manifest.told(next(iter(bundle.manifest.instructions), ""))
        observation, noise = witness_inputs(bundle.spec, bundle.horizon, told)
        run_chunk(backend, observation, bundle.default_loops, noise, bundle.steps)
        ready, times = time.perf_counter(), np.empty(_CHUNKS)
        for i in range(_CHUNKS):
            start = time.perf_counter()
            run_chunk(backend, observation, bundle.default_loops, noise, bundle.steps)
            times[i] = time.perf_counter() - start
    except LoopditError as error:
        return {"reason": str(error)}
    return {
        "loops": bundle.default_loops,
        "steps": bundle.steps,
        "device": backend.device,
        "threads": backend.threads,
        "ready_s": round(ready - began, 3),
        "chunk_ms": round(1e3 * float(np.median(times)), 3),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(try_backend(*sys.argv[1:])) + "\n")
