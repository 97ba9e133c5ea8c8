"""`policy-export`: a checkpoint becomes a bundle, proven equal to it before it gets its name.

The proof (`graph_parity`): every graph alone, and whole chunks of every K in every precision, on
several observations, in raw action units, against the float32 module that was trained. Beyond
tolerance nothing is written.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Console

from loopdit.command import Command, run_command
from loopdit.deploy.bench.latency import Workload, measure
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.deploy.bundle.manifest import FP32, WEIGHTS, Manifest
from loopdit.deploy.bundle.probes import Probes, make_probes
from loopdit.deploy.bundle.weights_file import WeightsFile
from loopdit.deploy.bundle.witness import Witness, witness_inputs
from loopdit.deploy.bundle.writer import staged_bundle, write_manifest
from loopdit.deploy.export.config import ExportConfig
from loopdit.deploy.export.described import described
from loopdit.deploy.export.graph_parity import prove
from loopdit.deploy.export.graph_precision import write_reduced
from loopdit.deploy.export.graph_runner import BACKEND
from loopdit.deploy.export.onnx_graphs import OPSET, export_denoise, export_encode
from loopdit.deploy.export.parity import reference_chunks
from loopdit.deploy.export.report import print_bundle, print_proofs
from loopdit.deploy.export.token_layout import token_layout
from loopdit.errors import ConfigError
from loopdit.machine import machine_and_versions
from loopdit.policy import checkpoint as checkpoints
from loopdit.policy.depth_calibration import load_calibration
from loopdit.policy.looped_dit_config import ONE_WAY, depths_text
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.policy.objectives.objective import DIFFUSIONS

__all__ = ["ExportConfig", "export_bundle"]


def export_bundle(config: ExportConfig, console: Console) -> Bundle:
    """Write the bundle that `config` asks for. Raises LoopditError, leaving nothing behind."""
    if checkpoints.checkpoint_kind(config.checkpoint) == checkpoints.GRAFT:
        from loopdit.deploy.export.graft import export_graft  # late: diffusers takes seconds

        return export_graft(config, console)
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
    adaptive = load_calibration(Path(config.checkpoint), source.weights_sha256)
    with staged_bundle(config.out, config.overwrite) as staging:
        # Before the minutes of exporting: a data set that does not match is said at once.
        probes = _probes(policy, config)
        checkpoints.copy_policy(config.checkpoint, staging)
        _export_graphs(policy, loops, config, staging, console)
        manifest = replace(
            described(policy, source.provenance, loops, OPSET, config, staging),
            instruction=policy.config.instruction,
            instructions=tuple(policy.config.instructions),
            max_steps=_max_steps(policy),
            precisions=config.precisions,
            loop_graphs=config.loop_graphs,
            adaptive=None if adaptive is None else asdict(adaptive),
            layout=token_layout(policy),
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


def _max_steps(policy: LoopedPolicy) -> int | None:
    objective = policy.config.objective
    return objective.train_timesteps if objective.kind in DIFFUSIONS else None


def _export_graphs(
    policy: LoopedPolicy,
    loops: Sequence[int],
    config: ExportConfig,
    folder: Path,
    console: Console,
) -> None:
    weights = WeightsFile(folder / WEIGHTS)
    depths = [*loops, *([None] if config.loop_graphs else [])]
    exports = (("encode", export_encode), ("denoise", export_denoise))
    names: list[str] = []

    def write(what: str, write: Callable[[], Sequence[Path]]) -> None:
        began = perf_counter()
        paths = write()
        names.extend(path.name for path in paths)
        size = sum(path.stat().st_size for path in paths) / 1e3
        done = f"[{len(names)}/{len(depths) * len(exports) * len(config.precisions)}]"
        console.print(
            f"{done} {what}  {size:5.0f} kB  {perf_counter() - began:5.1f} s",
            markup=False,
            highlight=False,
        )

    for k in depths:
        for kind, export in exports:
            depth = "any K" if k is None else f"K={k}  "
            write(f"{kind:8}{depth}", lambda export=export, k=k: [export(policy, k, weights)])
    floats = list(names)
    for precision in config.precisions:
        if precision != FP32:
            write(f"all in {precision}", lambda p=precision: write_reduced(folder, floats, p))


def _prove(
    bundle: Bundle, policy: LoopedPolicy, probes: Probes, config: ExportConfig, console: Console
) -> dict[str, Any]:
    """Print the parity tables and return the manifest's entry. Raises BundleError beyond them."""
    proofs = prove(bundle, policy, probes, config.steps, config.tolerances)
    source = f"{len(probes)} {probes.source}, {config.steps} steps"
    print_proofs(proofs, f"{BACKEND} against the float32 reference: {source}", console)
    for proof in proofs:
        proof.require()
    return {
        "backend": BACKEND,
        "steps": config.steps,
        "observations": len(probes),
        "source": probes.source,
        "seed": config.seed,
        "proofs": [proof.to_dict() for proof in proofs],
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
    arms = measure(workload, [BACKEND], loops, config.repetitions, config.seed)
    rows = [{**arm.summary(), "steps": config.steps, "batch": 1} for arm in arms]
    return {"rows": rows, **machine_and_versions()}


def _run(config: ExportConfig) -> None:
    console = Console()
    print_bundle(export_bundle(config, console), config.out, console)


COMMAND = Command(
    name="policy-export",
    folder="export",
    summary="turn a checkpoint into a bundle of ONNX graphs, each proven against torch",
    examples=(
        "policy-export checkpoint=outputs/checkpoint out=outputs/bundle",
        "policy-export checkpoint=outputs/checkpoint data=outputs/demonstrations.zarr",
        "policy-export checkpoint=outputs/checkpoint out=outputs/fast loops=[1,2] overwrite=true",
        "policy-export checkpoint=outputs/checkpoint out=policy.zip precision=[fp16,bf16]",
    ),
)


def main() -> None:
    """Entry point of `policy-export`."""
    run_command(COMMAND, ExportConfig, _run)


if __name__ == "__main__":
    main()
