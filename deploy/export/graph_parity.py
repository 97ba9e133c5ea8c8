"""What every graph of an export is off by, each alone and together, against the trained module.

    alone      one denoising step from noise to a chunk (t = 0, dt = 1) in which one graph takes the
               module's place and the other half is the module's own
    together   whole chunks, encode and all denoising steps by the graphs

Both in what the robot would be sent: an error of keys and values says nothing to its reader.
Shapes as in `parity`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from loopdit.datasets.spec import COMMITTED
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.deploy.bundle.manifest import graph_name
from loopdit.deploy.bundle.probes import Probes
from loopdit.deploy.export.config import tolerance_option
from loopdit.deploy.export.graph_runner import GraphRunner
from loopdit.deploy.export.parity import ParityRow, compare_chunks, reference_chunks
from loopdit.errors import BundleError
from loopdit.policy.looped_dit import Context
from loopdit.policy.looped_policy import MASK, LoopedPolicy


@dataclass(frozen=True)
class GraphRow:
    """Largest and mean error of one graph alone, raw action units; of one with K as an input at the
    K where it is largest."""

    graph: str
    max_abs_error: float
    mean_abs_error: float


@dataclass(frozen=True)
class Proof:
    """What one precision is off by.

    tolerance: how much any of it may be. rows: whole chunks at each K by the graphs of that K;
    counted_rows: by those with K as an input, none where there are none.
    """

    precision: str
    tolerance: float
    rows: tuple[ParityRow, ...]
    counted_rows: tuple[ParityRow, ...]
    graphs: tuple[GraphRow, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)

    def require(self) -> None:
        """Raise BundleError unless everything is within the tolerance."""
        for row in self.graphs:
            self._require(row.max_abs_error, row.graph)
        for row in (*self.rows, *self.counted_rows):
            self._require(row.max_abs_error, f"the whole denoising at K={row.loops}")

    def _require(self, error: float, what: str) -> None:
        option = tolerance_option(self.precision)
        if error > self.tolerance:
            raise BundleError(
                f"the exported {self.precision} graphs differ from the float32 reference by up to "
                f"{error:.2g} (raw action units) in {what}, beyond {option}={self.tolerance:g}. No "
                f"bundle was written. Allow more with {option}=, or leave this precision out."
            )


def prove(
    bundle: Bundle,
    policy: LoopedPolicy,
    probes: Probes,
    steps: int,
    tolerances: Mapping[str, float],
) -> list[Proof]:
    """Compare every graph of `bundle` with `policy`; nothing is required of the result yet."""
    references = {k: reference_chunks(policy, probes, k, steps) for k in bundle.loops}
    proofs: list[Proof] = []
    for precision in bundle.precisions:
        graphs: list[GraphRow] = []
        rows: dict[bool, tuple[ParityRow, ...]] = {True: ()}
        for counted in (False, True) if bundle.manifest.loop_graphs else (False,):
            runner = GraphRunner(bundle, precision, counted)
            rows[counted] = tuple(
                _chunk_row(runner, policy, probes, k, steps, references[k]) for k in bundle.loops
            )
            graphs += _graph_rows(runner, policy, probes)
        proofs.append(
            Proof(precision, tolerances[precision], rows[False], rows[True], tuple(graphs))
        )
    return proofs


def _chunk_row(
    runner: GraphRunner,
    policy: LoopedPolicy,
    probes: Probes,
    loops: int,
    steps: int,
    reference: np.ndarray,
) -> ParityRow:
    found = runner.chunks(probes.observations, probes.noise, loops, steps)
    return compare_chunks(found, reference, loops, policy.spec.action)


def _graph_rows(runner: GraphRunner, policy: LoopedPolicy, probes: Probes) -> list[GraphRow]:
    """One for each file: encode and denoise of each K, or of all of them."""
    found: dict[str, list[ParityRow]] = {}
    for k in runner.bundle.loops:
        for kind, row in _alone(runner, policy, probes, k).items():
            depth = None if runner.counted else k
            found.setdefault(graph_name(kind, depth, runner.precision), []).append(row)
    worst = {name: max(rows, key=lambda row: row.max_abs_error) for name, rows in found.items()}
    return [GraphRow(n, row.max_abs_error, row.mean_abs_error) for n, row in worst.items()]


@torch.inference_mode()
def _alone(
    runner: GraphRunner, policy: LoopedPolicy, probes: Probes, loops: int
) -> dict[str, ParityRow]:
    observation = {name: torch.from_numpy(np.array(v)) for name, v in probes.observations.items()}
    own = policy.encode(observation, loops)
    reference = _step(policy, own, probes.noise)
    made = runner.encode(probes.observations, loops)
    tensors = {name: torch.from_numpy(value) for name, value in made.items()}
    theirs = policy.context(
        tensors["keys"], tensors["values"], tensors.get(MASK), tensors.get(COMMITTED)
    )
    given = {"keys": own.keys.numpy(), "values": own.values.numpy()}
    if own.mask is not None:
        given[MASK] = own.mask.numpy()
    if COMMITTED in made:
        given[COMMITTED] = made[COMMITTED]
    chunks = {
        "encode": _step(policy, theirs, probes.noise),
        "denoise": runner.step(given, probes.noise, t=0.0, dt=1.0, loops=loops)[1],
    }
    action = policy.spec.action
    return {k: compare_chunks(chunk, reference, loops, action) for k, chunk in chunks.items()}


def _step(policy: LoopedPolicy, context: Context, noise: np.ndarray) -> np.ndarray:
    start = torch.zeros(len(noise))
    after = policy.denoise_step(torch.from_numpy(noise), start, start + 1, context)
    return policy.to_actions(after).numpy()
