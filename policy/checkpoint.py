"""A trained policy on disk: weights, what rebuilds them, and what goes on with the training.

A checkpoint is a folder: `checkpoint.json` (format version, spec, model configuration, training
provenance, digests of the other files, the training's numbers), `model.safetensors` (the weights
to serve, normaliser included) and `training_state.safetensors` (raw weights, optimizer; not needed
to serve). All of it changes at once (`checkpoint_files`), and nothing in it is a pickle.

Version 1 had no digests and its training state was a pickle: its weights are read, training goes
on from them only as from any others.
"""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from loopdit.datasets.spec import PolicySpec
from loopdit.errors import CheckpointError, LoopditError
from loopdit.policy.checkpoint_files import (
    GRAFT,
    LOOPED,
    MANIFEST,
    read_checkpoint,
    read_manifest,
    replace_checkpoint,
)
from loopdit.policy.looped_dit_config import LoopedDiTConfig
from loopdit.policy.looped_policy import LoopedPolicy

__all__ = ["GRAFT", "LOOPED", "MANIFEST", "TRAINING_STATE", "WEIGHTS"]

FORMAT = "loopdit-checkpoint"
FORMAT_VERSION = 2
_READABLE_VERSIONS = (1, 2)
WEIGHTS = "model.safetensors"
TRAINING_STATE = "training_state.safetensors"
_NUMBERS = "training"  # the manifest's entry beside the tensors of TRAINING_STATE


@dataclass(frozen=True)
class TrainingState:
    """What a training goes on from: plain JSON, and tensors by name."""

    numbers: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True)
class CheckpointContent:
    """All that a checkpoint holds, before it is written. `config`, a dataclass, rebuilds a policy
    of this `kind`."""

    spec: PolicySpec
    config: Any
    weights: Mapping[str, Tensor]
    provenance: Mapping[str, Any]
    training: TrainingState | None = None
    kind: str = LOOPED

    @classmethod
    def of(
        cls,
        policy: LoopedPolicy,
        provenance: Mapping[str, Any],
        training: TrainingState | None = None,
    ) -> "CheckpointContent":
        """What is in `policy` now; its tensors are shared, not copied."""
        return cls(policy.spec, policy.config, policy.state_dict(), provenance, training)

    def copied(self) -> "CheckpointContent":
        """The same with tensors of its own on the CPU, for who writes while training goes on."""
        training = self.training and replace(self.training, tensors=_copied(self.training.tensors))
        return replace(self, weights=_copied(self.weights), training=training)


@dataclass(frozen=True)
class Checkpoint:
    """A policy in eval mode, float32, on the CPU, and how it came to be.

    `weights_sha256` is of the weights' file, whose name differs while it is being replaced.
    """

    policy: LoopedPolicy
    provenance: dict[str, Any]
    weights_sha256: str


def save_checkpoint(
    folder: Path,
    policy: LoopedPolicy,
    provenance: Mapping[str, Any],
    training: TrainingState | None = None,
) -> None:
    """Write or replace the checkpoint in `folder`. Raises CheckpointError when the disk is full."""
    write_checkpoint(folder, CheckpointContent.of(policy, provenance, training))


def write_checkpoint(folder: Path, content: CheckpointContent) -> None:
    """Like `save_checkpoint`, of what was in a policy at another moment."""
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "spec": content.spec.to_dict(),
        "policy": asdict(content.config),
        "provenance": dict(content.provenance),
    }
    if content.kind != LOOPED:  # as it was before there were kinds
        manifest["kind"] = content.kind
    files: dict[str, Callable[[Path], None]] = {WEIGHTS: _writer(content.weights)}
    if content.training is not None:
        manifest[_NUMBERS] = dict(content.training.numbers)
        files[TRAINING_STATE] = _writer(content.training.tensors)
    _replace(folder, manifest, files)


def copy_policy(source: str | Path, target: Path) -> None:
    """Write `source`'s policy to `target` as a checkpoint without training state, byte for byte.

    Raises CheckpointError.
    """
    manifest, files = read_checkpoint(Path(source), [WEIGHTS])
    _require_version(Path(source), manifest)
    names = ("format", "spec", "policy", "provenance", *(["kind"] if "kind" in manifest else []))
    described = {name: manifest[name] for name in names}
    _replace(
        target,
        {**described, "format_version": FORMAT_VERSION},
        {WEIGHTS: partial(_write_bytes, content=files[WEIGHTS])},
    )


def load_checkpoint(folder: str | Path) -> Checkpoint:
    """Read the checkpoint of a looped policy.

    Raises CheckpointError: missing, damaged, of another format, or of another kind.
    """
    raw = read_raw(folder, LOOPED)
    with damage_told(folder):
        policy = LoopedPolicy(raw.spec, LoopedDiTConfig.from_dict(raw.policy))
        policy.load_state_dict(raw.weights)
    frozen = policy.eval().requires_grad_(False)
    return Checkpoint(frozen, raw.provenance, raw.weights_sha256)


@dataclass(frozen=True)
class RawCheckpoint:
    """What is in a checkpoint, before a policy is made of it. `policy` is its configuration."""

    kind: str
    spec: PolicySpec
    policy: dict[str, Any]
    provenance: dict[str, Any]
    weights: dict[str, Tensor]
    weights_sha256: str


def read_raw(folder: str | Path, kind: str) -> RawCheckpoint:
    """Read a checkpoint of a kind. Raises CheckpointError as `load_checkpoint` does."""
    folder = Path(folder)
    found = checkpoint_kind(folder)
    if found != kind:
        raise CheckpointError(
            f"{folder} holds a policy of the kind {found!r}, which does not go here: it takes one "
            f"of the kind {kind!r}."
        )
    manifest, files = read_checkpoint(folder, [WEIGHTS])
    with damage_told(folder):
        return RawCheckpoint(
            kind,
            PolicySpec.from_dict(manifest["spec"]),
            manifest["policy"],
            manifest["provenance"],
            safetensors.torch.load(files[WEIGHTS]),
            sha256(files[WEIGHTS]).hexdigest(),
        )


def checkpoint_kind(folder: str | Path) -> str:
    """LOOPED or GRAFT. Raises CheckpointError for what is no checkpoint that is read here."""
    manifest = read_manifest(Path(folder))
    _require_version(Path(folder), manifest)
    return str(manifest.get("kind", LOOPED))


@contextmanager
def damage_told(folder: str | Path) -> Generator[None]:
    """Turn what reading a damaged checkpoint raises into CheckpointError."""
    try:
        yield
    except LoopditError:
        raise
    except (KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(
            f"the checkpoint {folder} is damaged: {error!s:.300}. Train or copy it again."
        ) from error


def load_policy(folder: str | Path) -> LoopedPolicy:
    """The policy of a checkpoint, ready to act. Raises like `load_checkpoint`."""
    return load_checkpoint(folder).policy


def load_training_state(folder: Path) -> tuple[TrainingState, dict[str, Tensor]]:
    """What `save_checkpoint` was given to go on from, and the weights that were saved with it.

    Raises CheckpointError.
    """
    version = _require_version(folder, read_manifest(folder))
    if version == 1:
        raise CheckpointError(
            f"{folder} was trained by an earlier loopdit, whose training state is a pickle and is "
            f"not read. Begin from its weights in another folder: init={folder} out=FOLDER."
        )
    try:
        manifest, files = read_checkpoint(folder, [WEIGHTS, TRAINING_STATE])
        weights, tensors = (
            safetensors.torch.load(files[name]) for name in (WEIGHTS, TRAINING_STATE)
        )
        numbers = manifest[_NUMBERS]
    except (CheckpointError, KeyError, SafetensorError) as error:
        raise CheckpointError(
            f"training cannot go on in {folder}: {error!s:.200} Start afresh with overwrite=true."
        ) from error
    return TrainingState(numbers, tensors), weights


def _replace(
    folder: Path, manifest: Mapping[str, Any], files: Mapping[str, Callable[[Path], None]]
) -> None:
    try:
        replace_checkpoint(folder, manifest, files)
    except (OSError, RuntimeError, SafetensorError) as error:
        # safetensors reports a full disk as an error of its own.
        raise CheckpointError(
            f"cannot write the checkpoint {folder} ({error}). "
            f"Free space or choose another out=; what was there before is intact."
        ) from error


def _require_version(folder: Path, manifest: Mapping[str, Any]) -> int:
    found = (manifest.get("format"), manifest.get("format_version"))
    if found[0] != FORMAT or found[1] not in _READABLE_VERSIONS:
        raise CheckpointError(
            f"{folder / MANIFEST} has format {found[0]!r} version {found[1]!r}; this loopdit reads "
            f"{FORMAT!r} version {FORMAT_VERSION}. Train again, or use the loopdit that wrote it."
        )
    return int(found[1])


def _writer(tensors: Mapping[str, Tensor]) -> Callable[[Path], None]:
    whole = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    return lambda path: safetensors.torch.save_file(whole, path)


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
