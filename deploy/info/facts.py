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
from loopdit.errors import CheckpointError
from loopdit.policy.checkpoint import TRAINING_STATE, load_checkpoint
from loopdit.policy.checkpoint_files import MANIFEST, read_manifest
from loopdit.policy.depth_calibration import load_calibration
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.policy.parameter_counts import parameter_counts
from loopdit.policy.presets import preset

Facts = dict[str, Any]


def preset_facts(name: str) -> Facts:
    """Its summary and its parameters by part. Raises ConfigError for an unknown name."""
    found = preset(name)
    counts = parameter_counts(found.on_meta())
    return {"kind": "preset", "name": name, "summary": found.summary, **counts}


def checkpoint_facts(folder: Path) -> Facts:
    """Raises CheckpointError for what `load_checkpoint` refuses."""
    loaded = load_checkpoint(folder)
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
    loaded = load_checkpoint(bundle.path)
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


def _policy_facts(policy: LoopedPolicy) -> Facts:
    # A loaded policy is frozen: what training may change is told by one as it is made.
    with torch.device("meta"):
        fresh = LoopedPolicy(policy.spec, policy.config)
    return {
        "horizon": policy.horizon,
        "policy": asdict(policy.config),
        **parameter_counts(fresh.model),
        "spec": policy.spec.to_dict(),
        "spec_digest": policy.spec.digest(),
    }


def _sizes(folder: Path, listed: Mapping[str, Any]) -> dict[str, int]:
    """Bytes of the files that belong to a checkpoint; format version 1 did not list them."""
    if listed:
        return {name: int(entry["bytes"]) for name, entry in sorted(listed.items())}
    return {p.name: p.stat().st_size for p in sorted(folder.iterdir()) if p.name != MANIFEST}
