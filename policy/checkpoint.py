"""A trained policy on disk: weights, what rebuilds them, and what goes on with the training.

A checkpoint is a folder: `checkpoint.json` (format version, spec, model configuration, training
provenance), `model.safetensors` (the weights to serve, normaliser included), and
`training_state.pt` (step, raw weights, optimizer, random state; not needed to serve).
Each file is written aside and renamed, so a crash leaves the previous one.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from loopdit.datasets.spec import PolicySpec
from loopdit.errors import CheckpointError, LoopditError
from loopdit.policy.looped_dit import LoopedDiTConfig
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.whole_file import whole_file

FORMAT = "loopdit-checkpoint"
FORMAT_VERSION = 1
MANIFEST = "checkpoint.json"
WEIGHTS = "model.safetensors"
TRAINING_STATE = "training_state.pt"


@dataclass(frozen=True)
class Checkpoint:
    """A policy in eval mode, float32, on the CPU, and how it came to be."""

    policy: LoopedPolicy
    provenance: dict[str, Any]


def save_checkpoint(
    folder: Path,
    policy: LoopedPolicy,
    provenance: Mapping[str, Any],
    training_state: Mapping[str, Any] | None = None,
) -> None:
    """Write or replace the checkpoint in `folder`. Raises CheckpointError when the disk is full."""
    manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "spec": policy.spec.to_dict(),
        "policy": asdict(policy.config),
        "provenance": dict(provenance),
    }
    weights = {name: tensor.contiguous() for name, tensor in policy.state_dict().items()}
    text = json.dumps(manifest, indent=1)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if training_state is not None:
            with whole_file(folder / TRAINING_STATE) as path:
                torch.save(dict(training_state), path)
        with whole_file(folder / WEIGHTS) as path:
            save_file(weights, path)
        with whole_file(folder / MANIFEST) as path:
            path.write_text(text)
    except (OSError, RuntimeError, SafetensorError) as error:
        # torch and safetensors report a full disk as errors of their own.
        raise CheckpointError(
            f"cannot write the checkpoint {folder} ({error}). "
            f"Free space or choose another out=; what was there before is intact."
        ) from error


def load_checkpoint(folder: str | Path) -> Checkpoint:
    """Read a checkpoint. Raises CheckpointError: missing, damaged, or of another format."""
    folder = Path(folder)
    manifest = _read_manifest(folder)
    try:
        spec = PolicySpec.from_dict(manifest["spec"])
        policy = LoopedPolicy(spec, LoopedDiTConfig(**manifest["policy"]))
        policy.load_state_dict(load_file(folder / WEIGHTS))
        provenance = manifest["provenance"]
    except LoopditError:
        raise
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder / WEIGHTS} is missing. Copy the whole folder.") from error
    except (KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(
            f"the checkpoint {folder} is damaged: {error!s:.300}. Train or copy it again."
        ) from error
    return Checkpoint(policy.eval().requires_grad_(False), provenance)


def load_policy(folder: str | Path) -> LoopedPolicy:
    """The policy of a checkpoint, ready to act. Raises like `load_checkpoint`."""
    return load_checkpoint(folder).policy


def load_training_state(folder: Path) -> dict[str, Any]:
    """What `save_checkpoint` was given to go on from. Raises CheckpointError."""
    path = folder / TRAINING_STATE
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path} is missing, so training cannot go on. Start afresh with overwrite=true."
        ) from error
    except Exception as error:  # torch raises many kinds for a damaged file
        raise CheckpointError(
            f"{path} is damaged ({error!s:.200}). Start afresh with overwrite=true."
        ) from error


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest: Any = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CheckpointError(
            f"{folder} is not a checkpoint: it has no {MANIFEST}. "
            f"Make one: policy-train out={folder}."
        ) from error
    except ValueError as error:  # not JSON, or not even text
        raise CheckpointError(f"{path} is damaged: {error}. Train or copy it again.") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("provenance", {}), dict):
        raise CheckpointError(f"{path} is not a checkpoint's. Train or copy it again.")
    found = (manifest.get("format"), manifest.get("format_version"))
    if found != (FORMAT, FORMAT_VERSION):
        raise CheckpointError(
            f"{path} has format {found[0]!r} version {found[1]!r}; this loopdit reads "
            f"{FORMAT!r} version {FORMAT_VERSION}. Train again, or use the loopdit that wrote it."
        )
    return manifest
