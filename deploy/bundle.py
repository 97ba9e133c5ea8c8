"""A bundle: the folder `policy-export` writes and everything that serves a policy reads.

    manifest.json        spec, loops, hashes, parity, latency, provenance: `manifest`
    model.safetensors    every weight, once
    checkpoint.json      the model's configuration, for the torch back end
    encode_k{K}.onnx     observation (raw units) -> keys, values; one for each K
    denoise_k{K}.onnx    sample, t, dt, keys, values -> next sample, and that as actions (raw units)

Normalisation lives in the graphs and in the torch module alike, never outside the bundle.
Opening verifies the format version and the sha256 of every file. Writing is `bundle_writer`.
Knows no back end.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopdit.datasets.spec import PolicySpec
from loopdit.deploy.manifest import (
    FORMAT,
    FORMAT_VERSION,
    GRAPH_KINDS,
    MANIFEST,
    WEIGHTS,
    BundleFile,
    Manifest,
    graph_name,
)
from loopdit.errors import BundleError, LoopditError

_SHIPPED = Path(__file__).resolve().parent / "bundles" / "lift"


@dataclass(frozen=True)
class Bundle:
    """An opened bundle whose files were verified."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | Path) -> "Bundle":
        """Read and verify. Raises BundleError naming the file and what was found in its place."""
        # Resolved, because the runtimes read the weights beside the graph's real place only.
        folder = Path(path).resolve()
        manifest = _read_manifest(folder, shown=str(path))
        for name, entry in manifest.files.items():
            _verify_file(folder, name, entry, shown=str(path))
        expected = model_id(manifest.files[WEIGHTS].sha256, manifest.spec)
        if manifest.model_id != expected:
            raise BundleError(
                f"{path}: {MANIFEST} was altered: model_id is {manifest.model_id}, its weights and "
                f"spec give {expected}. {_remake(str(path), overwrite=True)}"
            )
        return cls(folder, manifest)

    @property
    def spec(self) -> PolicySpec:
        """What the policy is given and commands, in raw units."""
        return self.manifest.spec

    @property
    def horizon(self) -> int:
        """Actions in a chunk."""
        return self.manifest.horizon

    @property
    def loops(self) -> tuple[int, ...]:
        """Each K that can be run, ascending."""
        return self.manifest.loops

    @property
    def default_loops(self) -> int:
        """The K to run when nobody chooses."""
        return self.manifest.default_loops

    @property
    def steps(self) -> int:
        """Denoising steps to run when nobody chooses."""
        return self.manifest.steps

    @property
    def temperature(self) -> float:
        """Spread of the starting noise: 0 is the policy's best guess, 1 a fair draw."""
        return self.manifest.temperature

    @property
    def model_id(self) -> str:
        """16 hex digits of the weights and the spec: equal only for the same policy."""
        return self.manifest.model_id

    @property
    def provenance(self) -> Mapping[str, Any]:
        """How the weights were trained: configuration, seeds, data digest, versions, commit."""
        return self.manifest.provenance

    @property
    def files(self) -> Mapping[str, BundleFile]:
        """Every file but the manifest, by name."""
        return self.manifest.files

    @property
    def bytes(self) -> int:
        """Size of the files the manifest lists."""
        return sum(entry.bytes for entry in self.files.values())

    def graph(self, kind: str, loops: int) -> Path:
        """The ONNX file of "encode" or "denoise" at K = `loops`."""
        return self.path / graph_name(kind, loops)

    def require_loops(self, loops: int) -> None:
        """Raise BundleError when K = `loops` was not exported."""
        if loops not in self.loops:
            raise BundleError(
                f"loops={loops} is not in this bundle, which has "
                f"{', '.join(map(str, self.loops))}. Choose one of them, or export again with it."
            )

    def require_unchanged(self) -> None:
        """Raise BundleError when the files are no longer those that were opened."""
        if Bundle.open(self.path).model_id != self.model_id:
            raise BundleError(
                f"{self.path} was overwritten while it was in use: model {self.model_id} was "
                f"opened. Start again to use the new one."
            )


def default_bundle() -> Path:
    """The bundle shipped with loopdit. Raises BundleError where there is none."""
    if not (_SHIPPED / MANIFEST).is_file():
        raise BundleError(
            "no bundle was named, and this installation ships none. Name one with "
            "bundle=FOLDER; policy-export checkpoint=FOLDER out=FOLDER makes one."
        )
    return _SHIPPED


def model_id(weights_sha256: str, spec: PolicySpec) -> str:
    """16 hex digits that are equal only for equal weights and specs."""
    return hashlib.sha256(f"{weights_sha256} {spec.digest()}".encode()).hexdigest()[:16]


def file_entry(path: Path) -> BundleFile:
    """Size and hash of a file as it lies there."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return BundleFile(path.stat().st_size, digest)


def is_bundle(folder: Path) -> bool:
    """Whether a folder claims to be a bundle, of any version; nothing is verified."""
    try:
        data = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and data.get("format") == FORMAT


def _read_manifest(folder: Path, shown: str) -> Manifest:
    if not folder.is_dir():
        found = "is a file, not a folder" if folder.exists() else "does not exist"
        raise BundleError(f"bundle {shown} {found}. {_remake(shown)}")
    path = folder / MANIFEST
    if not path.is_file():
        # A checkpoint is the folder people name by mistake.
        if (folder / "checkpoint.json").is_file():
            raise BundleError(
                f"{shown} is a training checkpoint, not a bundle. Export it first: "
                f"policy-export checkpoint={shown} out=FOLDER"
            )
        raise BundleError(f"{shown} is not a bundle: it has no {MANIFEST}. {_remake(shown)}")
    remake = _remake(shown, overwrite=True)
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BundleError(
            f"{shown}: {MANIFEST} is truncated or altered ({error}). {remake}"
        ) from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise BundleError(f"{shown} is not a bundle: {MANIFEST} does not say {FORMAT!r}.")
    found = data.get("format_version")
    if found != FORMAT_VERSION:
        raise BundleError(
            f"{shown} has bundle format version {found}; this loopdit reads version "
            f"{FORMAT_VERSION}. {remake}"
        )
    try:
        manifest = Manifest.from_dict(data)
        listed = {graph_name(kind, k) for kind in GRAPH_KINDS for k in manifest.loops}
        missing = sorted(({WEIGHTS} | listed) - set(manifest.files))
        if missing:
            raise ValueError(f"lists no {missing[0]}")
        if manifest.default_loops not in manifest.loops:
            raise ValueError(f"default_loops={manifest.default_loops} is not one of its loops")
    except (KeyError, TypeError, ValueError, AttributeError, LoopditError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise BundleError(f"{shown}: {MANIFEST} {reason}. {remake}") from error
    return manifest


def _verify_file(folder: Path, name: str, entry: BundleFile, shown: str) -> None:
    remake = _remake(shown, overwrite=True)
    if Path(name).name != name:  # a manifest from elsewhere must not make us read elsewhere
        raise BundleError(f"{shown}: {MANIFEST} lists {name!r}, which is not a plain file name.")
    path = folder / name
    if not path.is_file():
        raise BundleError(f"{shown}: {name} is missing. {remake}")
    found = file_entry(path)
    if found.bytes != entry.bytes:
        raise BundleError(
            f"{shown}: {name} is truncated or altered: {found.bytes} bytes, the manifest says "
            f"{entry.bytes}. {remake}"
        )
    if found.sha256 != entry.sha256:
        raise BundleError(
            f"{shown}: {name} was altered: its sha256 is {found.sha256[:16]}..., the manifest says "
            f"{entry.sha256[:16]}.... {remake}"
        )


def _remake(shown: str, overwrite: bool = False) -> str:
    suffix = " overwrite=true" if overwrite else ""
    return f"Make it with: policy-export checkpoint=CHECKPOINT out={shown}{suffix}"
