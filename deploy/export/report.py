"""What `policy-export` prints: how far each graph is from the reference, what the bundle weighs,
and the command that says what a lower precision costs in closed loop.
"""

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from loopdit.deploy.backends.registry import KINDS
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.deploy.bundle.manifest import FP32, MANIFEST, weights_name
from loopdit.deploy.export.graph_parity import Proof
from loopdit.policy.normalizer import Normalizer


def print_proofs(proofs: Sequence[Proof], heading: str, console: Console) -> None:
    """Two tables: each graph alone, and whole chunks."""
    _say(f"{heading}, errors in raw action units", console)
    alone = Table("one graph alone, in one step", "max error", "mean error")
    for proof in proofs:
        for row in proof.graphs:
            alone.add_row(row.graph, f"{row.max_abs_error:.2e}", f"{row.mean_abs_error:.2e}")
    console.print(alone)
    whole = Table("all steps", "K", "max error", "mean error", "at a limit", "K as an input")
    for proof in proofs:
        counted = {row.loops: f"{row.max_abs_error:.2e}" for row in proof.counted_rows}
        for row in proof.rows:
            errors = (f"{row.max_abs_error:.2e}", f"{row.mean_abs_error:.2e}", f"{row.clipped:.1%}")
            name = proof.precision
            whole.add_row(name, str(row.loops), *errors, counted.get(row.loops, "-"))
    console.print(whole)


def print_bundle(bundle: Bundle, out: str, console: Console) -> None:
    """What it weighs, what a chunk takes here, and what to do next."""
    total = bundle.bytes + (bundle.path / MANIFEST).stat().st_size
    parts = [_weight(bundle, precision) for precision in bundle.precisions]
    _say(f"{out}: {total / 1e6:.2f} MB ({'; '.join(parts)}), model {bundle.model_id}", console)
    latency = "; ".join(
        f"K={row['loops']} {row['p50_ms']:.1f} ms"
        for table in bundle.manifest.latency
        for row in table["rows"]
    )
    if latency:
        _say(f"a chunk here takes (p50): {latency}", console)
    if bundle.precisions != (FP32,):
        _say(f"What they cost in closed loop: {closed_loop_command(bundle, out)}", console)
    _say(f"Serve it: policy-serve bundle={out}", console)


def numbers_for_people(normalizer: Normalizer) -> dict[str, list[float | None]]:
    """A normaliser's numbers; None for no limit, because JSON has no infinity."""
    return {
        name: [value if math.isfinite(value) else None for value in buffer.tolist()]
        for name, buffer in normalizer.named_buffers()
    }


def _weight(bundle: Bundle, precision: str) -> str:
    graphs = [bundle.files[name].bytes for name in bundle.manifest.graph_names(precision)]
    weights = bundle.files[weights_name(precision)].bytes
    return (
        f"{precision} weights {weights / 1e6:.2f} MB once, {len(graphs)} graphs "
        f"{sum(graphs) / 1e6:.2f} MB"
    )


def closed_loop_command(bundle: Bundle, out: str) -> str:
    """Evaluates every precision of a bundle on the same seeds, and compares it with fp32."""
    envs = _envs(bundle.provenance) or ["ENV"]  # for people to fill in
    choices = ",".join(f"{_backend(precision)}:{precision}" for precision in bundle.precisions)
    words = ["policy-eval", "backends", out, f"env=[{','.join(envs)}]", f"backends=[{choices}]"]
    return shlex.join(words)


def _backend(precision: str) -> str:
    """The first back end that has a precision and can run here, else one that has it."""
    kinds = [kind for kind in KINDS.values() if precision in kind.precisions]
    able = [kind for kind in kinds if kind.unavailable() is None]
    return (able or kinds)[0].name


def _envs(provenance: Mapping[str, Any]) -> list[str]:
    """Where the demonstrations come from, as far as they say it: of one data set, or of several."""
    data: Mapping[str, Any] = provenance.get("data_provenance", {})
    stores = data.get("stores", [{"provenance": data}])
    settings = [store.get("provenance", {}).get("settings", {}) for store in stores]
    return list(dict.fromkeys(str(each["env"]) for each in settings if "env" in each))


def _say(text: str, console: Console) -> None:
    console.print(text, highlight=False, soft_wrap=True, markup=False)
