"""What a preset, a checkpoint or a bundle is, as plain JSON types: read by `policy-info`.

A checkpoint and a bundle are opened as whoever uses them does, so that what is damaged is refused
here with the same words. Nothing is run.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from loopdit.deploy.bundle.bundle import Bundle, model_id
from loopdit.errors import CheckpointError, ConfigError
from loopdit.policy.any_checkpoint import AnyPolicy, load_any
from loopdit.policy.checkpoint import TRAINING_STATE
from loopdit.policy.checkpoint_files import MANIFEST, read_manifest
from loopdit.policy.depth_calibration import load_calibration
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.policy.parameter_counts import parameter_counts
from loopdit.policy.presets import COGVIDEOX_2B, preset

Facts = dict[str, Any]


def preset_facts(name: str, freeze: str = "", loops: int = 0) -> Facts:
    """Its summary and its parameters by part. `freeze` and `loops` are of a grafted video model
    alone. Raises ConfigError for an unknown name."""
    found = preset(name)
    said = {"freeze": freeze, "loops": loops}
    chosen = {option: value for option, value in said.items() if value}
    if not chosen:
        counts = parameter_counts(found.on_meta())
    elif name != COGVIDEOX_2B:
        raise ConfigError(
            f"{' and '.join(f'{option}={value}' for option, value in chosen.items())} are of a "
            f"grafted video model, and preset={name} is none. Use preset={COGVIDEOX_2B}."
        )
    else:
        from loopdit.policy.graft.systems import graft_system  # late: diffusers takes seconds

        with torch.device("meta"):
            counts = parameter_counts(graft_system(name, freeze, loops))
    return {"kind": "preset", "name": name, "summary": found.summary, **chosen, **counts}


def checkpoint_facts(folder: Path) -> Facts:
    """Raises CheckpointError for what `load_checkpoint` refuses."""
    loaded = load_any(folder)
    policy = loaded.policy
    manifest = read_manifest(folder)
    files = _sizes(folder, manifest.get("files", {}))
    return {
        "kind": "checkpoint",
        "path": str(folder),
        "format_version": manifest["format_version"],
        "model_id": model_id(loaded.weights_sha256, policy.spec),
        "loops": list(policy.depths),
        "resumable": TRAINING_STATE in files,
        **_policy_facts(policy),
        "files": files,
        "bytes": sum(files.values()),
        "adaptive": _adaptive(folder, loaded.weights_sha256),
        "provenance": loaded.provenance,
    }


def bundle_facts(path: Path) -> Facts:
    """Raises BundleError for what `Bundle.open` refuses, CheckpointError for its weights."""
    bundle = Bundle.open(path)
    manifest = bundle.manifest
    files = {name: entry.bytes for name, entry in sorted(bundle.files.items())}
    loaded = load_any(bundle.path)
    # One that was calibrated after the export has it beside its weights, as a checkpoint has.
    adaptive = _adaptive(bundle.path, loaded.weights_sha256)
    return {
        "kind": "bundle",
        "path": str(path),
        "model_id": bundle.model_id,
        "loops": list(bundle.loops),
        "loop_graphs": manifest.loop_graphs,
        "precisions": list(bundle.precisions),
        "default_loops": bundle.default_loops,
        "steps": bundle.steps,
        "max_steps": manifest.max_steps,
        "temperature": bundle.temperature,
        **_policy_facts(loaded.policy),
        "files": files,
        "bytes": bundle.bytes,
        "adaptive": adaptive or (manifest.adaptive and dict(manifest.adaptive)),
        "parity": dict(manifest.parity),
        "latency": [dict(table) for table in manifest.latency],
        "exported": dict(manifest.exported),
        "provenance": dict(bundle.provenance),
    }


def _adaptive(folder: Path, weights_sha256: str) -> Facts | None:
    """The threshold of adaptive depth that is kept with the weights, or what is wrong with it:
    weights that were trained on since are told all the same."""
    try:
        found = load_calibration(folder, weights_sha256)
    except CheckpointError as error:
        return {"error": str(error)}
    return None if found is None else asdict(found)


def _policy_facts(policy: AnyPolicy) -> Facts:
    return {
        "horizon": policy.horizon,
        "policy": asdict(policy.config),
        **_counts(policy),
        "spec": policy.spec.to_dict(),
        "spec_digest": policy.spec.digest(),
    }


def _counts(policy: AnyPolicy) -> Facts:
    """A loaded policy is frozen: what training may change is told by one as it is made."""
    if isinstance(policy, LoopedPolicy):
        with torch.device("meta"):
            return parameter_counts(LoopedPolicy(policy.spec, policy.config).model)
    for parameter in policy.trained().values():
        parameter.requires_grad_(True)
    return parameter_counts(policy)


def _sizes(folder: Path, listed: Mapping[str, Any]) -> dict[str, int]:
    """Bytes of the files that belong to a checkpoint; format version 1 did not list them."""
    if listed:
        return {name: int(entry["bytes"]) for name, entry in sorted(listed.items())}
    return {p.name: p.stat().st_size for p in sorted(folder.iterdir()) if p.name != MANIFEST}
