"""`policy-export`: a checkpoint becomes a bundle, proven equal to it before it gets its name.

The proof: whole chunks of every K on several observations, in raw action units, against the
float32 module that was trained. Beyond tolerance nothing is written.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.table import Table

from loopdit.command import Command, option, run_command
from loopdit.deploy.backends import load_backend
from loopdit.deploy.bundle import Bundle, file_entry, model_id
from loopdit.deploy.bundle_writer import staged_bundle, write_manifest
from loopdit.deploy.latency import Workload, measure
from loopdit.deploy.manifest import GRAPH_KINDS, MANIFEST, WEIGHTS, Manifest, graph_name
from loopdit.deploy.onnx_graphs import OPSET, export_denoise, export_encode
from loopdit.deploy.parity import (
    ParityRow,
    backend_chunks,
    compare_chunks,
    reference_chunks,
    require_parity,
)
from loopdit.deploy.probes import Probes, make_probes
from loopdit.deploy.weights_file import WeightsFile
from loopdit.deploy.witness import Witness, witness_inputs
from loopdit.errors import ConfigError
from loopdit.machine import machine_and_versions
from loopdit.policy import checkpoint as checkpoints
from loopdit.policy.looped_dit_config import ONE_WAY, depths_text
from loopdit.policy.looped_policy import DEFAULT_STEPS, LoopedPolicy

_BACKEND = "onnxruntime"


@dataclass(frozen=True)
class ExportConfig:
    """What `policy-export` is told."""

    checkpoint: str = option("", "folder that policy-train wrote (required)")
    out: str = option("outputs/bundle", "folder to write the bundle to")
    loops: list[int] = option([], "each K to export; empty: 1 up to the checkpoint's deepest")
    default_loops: int = option(0, "the K to serve when nobody chooses; 0: the deepest exported")
    steps: int = option(DEFAULT_STEPS, "denoising steps to run when nobody chooses")
    temperature: float | None = option(
        None,
        "spread of the starting noise: 0 best guess, 1 a fair draw; empty: the objective's own",
    )
    tolerance: float = option(1e-4, "largest difference from the reference, raw action units")
    data: str = option("", "episode store whose observations to compare on; empty: synthetic ones")
    observations: int = option(16, "how many observations to compare on")
    repetitions: int = option(30, "timed chunks per K for the manifest's latency table; 0: none")
    seed: int = option(0, "seed of the observations and the noise to compare on")
    overwrite: bool = option(False, "replace the bundle that out= holds")

    def __post_init__(self) -> None:
        if not self.checkpoint:
            raise ConfigError("checkpoint= is missing: name the folder that policy-train wrote.")
        if not self.out:
            raise ConfigError("out= is empty: name the folder to write the bundle to.")
        for name, low in (("steps", 1), ("observations", 1), ("repetitions", 0), ("seed", 0)):
            if getattr(self, name) < low:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least {low}.")
        if not self.tolerance >= 0:
            raise ConfigError(f"tolerance={self.tolerance} must be 0 or more.")
        if self.temperature is not None and not 0 <= self.temperature <= 1:
            raise ConfigError(f"temperature={self.temperature} must be from 0 to 1.")


def export_bundle(config: ExportConfig, console: Console) -> Bundle:
    """Write the bundle that `config` asks for. Raises LoopditError, leaving nothing behind."""
    source = checkpoints.load_checkpoint(config.checkpoint)
    policy = source.policy
    policy.objective.predictions(config.steps)  # raises where the sampler has not so many
    if policy.objective.needs_fresh_noise:
        raise ConfigError(
            f"{config.checkpoint} samples with noise at each step (policy.objective.sampler="
            f"{policy.config.objective.sampler}), which a graph does not draw. Train with ddim."
        )
    if policy.config.topology != ONE_WAY:
        raise ConfigError(
            f"{config.checkpoint} has policy.topology={policy.config.topology}, which encodes "
            f"nothing ahead: it is for comparisons, and has no graphs. Train one_way to export."
        )
    loops = _chosen_loops(config, policy)
    with staged_bundle(config.out, config.overwrite) as staging:
        # Before the minutes of exporting: a data set that does not match is said at once.
        probes = _probes(policy, config)
        checkpoints.copy_policy(config.checkpoint, staging)
        _export_graphs(policy, loops, staging, console)
        manifest = Manifest(
            spec=policy.spec,
            horizon=policy.horizon,
            loops=loops,
            default_loops=config.default_loops or loops[-1],
            steps=config.steps,
            temperature=policy.temperature if config.temperature is None else config.temperature,
            model_id=model_id(file_entry(staging / WEIGHTS).sha256, policy.spec),
            files={path.name: file_entry(path) for path in staging.iterdir()},
            normalisation=_for_people(policy),
            provenance=source.provenance,
            instruction=policy.config.instruction,
            instructions=tuple(policy.config.instructions),
            exported={"at": datetime.now(UTC).isoformat(timespec="seconds"), "opset": OPSET}
            | machine_and_versions(),
        )
        write_manifest(staging, manifest)
        parity = _prove(Bundle.open(staging), policy, probes, config, console)
        witness = _witness(policy, manifest, config.tolerance)
        manifest = replace(manifest, parity=parity, witness=witness)
        write_manifest(staging, manifest)
        if config.repetitions:
            manifest = replace(manifest, latency=(_timed(staging, probes, config, loops),))
        write_manifest(staging, manifest)
    return Bundle.open(config.out)


def _probes(policy: LoopedPolicy, config: ExportConfig) -> Probes:
    vocabulary, kind = policy.config.vocabulary, policy.config.instruction
    return make_probes(
        policy.spec,
        policy.horizon,
        config.observations,
        config.seed,
        config.data,
        lambda said: None if vocabulary is None else vocabulary.told(kind, said),
        policy.config.instructions,
    )


def _for_people(policy: LoopedPolicy) -> dict[str, list[float | None]]:
    """The normaliser's numbers; None for no limit, because JSON has no infinity."""
    return {
        name: [value if math.isfinite(value) else None for value in buffer.tolist()]
        for name, buffer in policy.normalizer.named_buffers()
    }


def _chosen_loops(config: ExportConfig, policy: LoopedPolicy) -> tuple[int, ...]:
    loops = tuple(sorted(set(config.loops or policy.depths)))
    wrong = [k for k in loops if k not in policy.depths]
    if wrong:
        raise ConfigError(
            f"loops={config.loops} has {wrong[0]}, and {config.checkpoint} was trained for "
            f"K = {depths_text(policy.depths)}."
        )
    if config.default_loops and config.default_loops not in loops:
        raise ConfigError(
            f"default_loops={config.default_loops} is not one of loops={list(loops)}."
        )
    return loops


def _export_graphs(
    policy: LoopedPolicy, loops: Sequence[int], folder: Path, console: Console
) -> None:
    weights = WeightsFile(folder / WEIGHTS)
    exports = (("encode", export_encode), ("denoise", export_denoise))
    total, done = len(loops) * len(exports), 0
    for k in loops:
        for kind, export in exports:
            began = perf_counter()
            path = export(policy, k, weights)
            done += 1
            size = path.stat().st_size / 1e3
            console.print(
                f"[{done}/{total}] {kind:8}K={k}  {size:5.0f} kB  {perf_counter() - began:5.1f} s",
                markup=False,
                highlight=False,
            )


def _prove(
    bundle: Bundle, policy: LoopedPolicy, probes: Probes, config: ExportConfig, console: Console
) -> dict[str, Any]:
    """Print the parity table and return the manifest's entry. Raises BundleError beyond it."""
    backend = load_backend(bundle, _BACKEND)
    rows: list[ParityRow] = []
    for k in bundle.loops:
        reference = reference_chunks(policy, probes, k, config.steps)
        found = backend_chunks(backend, probes, k, config.steps)
        rows.append(compare_chunks(found, reference, k, policy.spec.action))
    console.print(
        f"{_BACKEND} against the float32 reference: {len(probes)} {probes.source}, "
        f"{config.steps} steps, errors in raw action units",
        highlight=False,
        soft_wrap=True,
    )
    table = Table("K", "max error", "mean error", "at a limit")
    for row in rows:
        errors = (f"{row.max_abs_error:.2e}", f"{row.mean_abs_error:.2e}")
        table.add_row(str(row.loops), *errors, f"{row.clipped:.1%}")
    console.print(table)
    require_parity(rows, config.tolerance)
    return {
        "backend": _BACKEND,
        "precision": backend.precision,
        "steps": config.steps,
        "observations": len(probes),
        "source": probes.source,
        "seed": config.seed,
        "tolerance": config.tolerance,
        "rows": [row.to_dict() for row in rows],
    }


def _witness(policy: LoopedPolicy, manifest: Manifest, tolerance: float) -> Witness:
    told = manifest.told(next(iter(manifest.instructions), ""))
    observation, noise = witness_inputs(policy.spec, policy.horizon, told)
    probe = Probes(observation, noise, "the witness")
    actions = reference_chunks(policy, probe, manifest.default_loops, manifest.steps)[0]
    rows = tuple(tuple(row) for row in actions.tolist())
    return Witness(manifest.default_loops, manifest.steps, tolerance, rows)


def _timed(
    folder: Path, probes: Probes, config: ExportConfig, loops: Sequence[int]
) -> dict[str, Any]:
    workload = Workload(str(folder), probes, config.steps)
    arms = measure(workload, [_BACKEND], loops, config.repetitions, config.seed)
    rows = [{**arm.summary(), "steps": config.steps, "batch": 1} for arm in arms]
    return {"rows": rows, **machine_and_versions()}


def _run(config: ExportConfig) -> None:
    console = Console()
    bundle = export_bundle(config, console)
    weights = bundle.files[WEIGHTS].bytes
    graphs = sum(
        bundle.files[graph_name(kind, k)].bytes for kind in GRAPH_KINDS for k in bundle.loops
    )
    latency = "; ".join(
        f"K={row['loops']} {row['p50_ms']:.1f} ms"
        for table in bundle.manifest.latency
        for row in table["rows"]
    )
    console.print(
        f"{config.out}: {(bundle.bytes + (bundle.path / MANIFEST).stat().st_size) / 1e6:.2f} MB "
        f"(weights {weights / 1e6:.2f} MB once, {2 * len(bundle.loops)} graphs "
        f"{graphs / 1e6:.2f} MB), model {bundle.model_id}",
        highlight=False,
        soft_wrap=True,
    )
    if latency:
        console.print(f"a chunk here takes (p50): {latency}", highlight=False, soft_wrap=True)
    console.print(f"Serve it: policy-serve bundle={config.out}", highlight=False, soft_wrap=True)


COMMAND = Command(
    name="policy-export",
    folder="export",
    summary="turn a checkpoint into a bundle of ONNX graphs, each proven against torch",
    examples=(
        "policy-export checkpoint=outputs/checkpoint out=outputs/bundle",
        "policy-export checkpoint=outputs/checkpoint data=outputs/demonstrations.zarr",
        "policy-export checkpoint=outputs/checkpoint out=outputs/fast loops=[1,2] overwrite=true",
    ),
)


def main() -> None:
    """Entry point of `policy-export`."""
    run_command(COMMAND, ExportConfig, _run)


if __name__ == "__main__":
    main()
