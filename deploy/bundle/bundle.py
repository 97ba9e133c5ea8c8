"""A bundle: what `policy-export` writes and everything that serves a policy reads. A folder, or a
zip of its files.

    manifest.json        spec, loops, hashes, parity, latency, provenance: `manifest`
    model.safetensors    every weight, once
    checkpoint.json      the model's configuration, for the torch back end
    encode_k{K}.onnx     observation (raw units) -> keys, values; one for each K
    denoise_k{K}.onnx    sample, t, dt, keys, values -> next sample, and that as actions (raw units)
    encode_loop.onnx, denoise_loop.onnx    the same for any K, which is an input
    *.bf16.onnx, model.bf16.safetensors    the same in another precision, and the weights it has

Normalisation lives in the graphs and in the torch module alike, never outside the bundle.
Opening verifies the format version and the sha256 of every file; a manifest of an older version is
read as one of this (`manifest_migration`). A zip is unpacked once, into a cache (`bundle_archive`).
Writing is `bundle_writer`; docs/bundle.md has the format. Knows no back end.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopdit.datasets.spec import PolicySpec
from loopdit.deploy.bundle.archive import cached_folder, discard, manifest_of, unpack
from loopdit.deploy.bundle.manifest import (
    FORMAT,
    FORMAT_VERSION,
    FP32,
    MANIFEST,
    WEIGHTS,
    BundleFile,
    Manifest,
    graph_name,
)
from loopdit.deploy.bundle.manifest_migration import READABLE_VERSIONS, migrated
from loopdit.errors import BundleError, ConfigError, LoopditError

_CHECKPOINT = "checkpoint.json"
_SHIPPED = Path(__file__).resolve().parents[1] / "bundles" / "tabletop"


@dataclass(frozen=True)
class Bundle:
    """An opened bundle whose files were verified."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | Path) -> "Bundle":
        """Read and verify a folder or a zip; `path` is then the folder that the files are in.

        Raises BundleError naming the file and what was found in its place.
        """
        # Resolved, because the runtimes read the weights beside the graph's real place only.
        found = Path(path).resolve()
        if not found.is_file():
            return cls._open_folder(found, str(path))
        folder = cached_folder(found)
        if folder.is_dir():
            try:
                return cls._open_folder(folder, str(path))
            except BundleError:  # what is in a cache may be lost or altered
                discard(folder)
        unpack(found, folder)
        return cls._open_folder(folder, str(path))

    @classmethod
    def _open_folder(cls, folder: Path, shown: str) -> "Bundle":
        manifest = _read_manifest(folder, shown)
        for name, entry in manifest.files.items():
            _verify_file(folder, name, entry, shown)
        expected = model_id(manifest.files[WEIGHTS].sha256, manifest.spec)
        if manifest.model_id != expected:
            raise BundleError(
                f"{shown}: {MANIFEST} was altered: model_id is {manifest.model_id}, its weights "
                f"and spec give {expected}. {_remake(shown, overwrite=True)}"
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

    @property
    def precisions(self) -> tuple[str, ...]:
        """Those that have graphs of their own, fp32 first."""
        return self.manifest.precisions

    def graph(self, kind: str, loops: int | None, precision: str = FP32) -> Path:
        """The ONNX file of "encode" or "denoise" at K = `loops`; where that is None, the one that
        has K as its input "loops".

        Raises BundleError for one that was not exported.
        """
        self.require_precision(precision)
        if loops is not None:
            self.require_loops(loops)
        elif not self.manifest.loop_graphs:
            raise BundleError(
                f"{self.path} has no graphs with K as an input. Take those of each K, or export "
                f"again with loop_graphs=true."
            )
        return self.path / graph_name(kind, loops, precision)

    def require_precision(self, precision: str) -> None:
        """Raise BundleError when there are no graphs of `precision`."""
        if precision not in self.precisions:
            raise BundleError(
                f"precision={precision} is not in this bundle, which has "
                f"{', '.join(self.precisions)}. Choose one of them, or export again with "
                f"precision=[{precision}]."
            )

    def require_steps(self, steps: int) -> None:
        """Raise ConfigError for a number of denoising steps that the policy's sampler has not."""
        most = self.manifest.max_steps
        if steps < 1 or (most is not None and steps > most):
            bound = f"from 1 to {most}, the timesteps it was trained with" if most else "at least 1"
            raise ConfigError(f"steps={steps} must be {bound}.")

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


def is_bundle(path: Path) -> bool:
    """Whether a folder or a zip claims to be a bundle, of any version; nothing is verified."""
    try:
        data: Any = json.loads(
            manifest_of(path) if path.is_file() else (path / MANIFEST).read_bytes()
        )
    except (OSError, ValueError, BundleError):
        return False
    return isinstance(data, dict) and data.get("format") == FORMAT


def _read_manifest(folder: Path, shown: str) -> Manifest:
    if not folder.is_dir():
        raise BundleError(f"bundle {shown} does not exist. {_remake(shown)}")
    if not (folder / MANIFEST).is_file():
        # A checkpoint is the folder people name by mistake.
        if (folder / _CHECKPOINT).is_file():
            raise BundleError(
                f"{shown} is a training checkpoint, not a bundle. Export it first: "
                f"policy-export checkpoint={shown} out=FOLDER"
            )
        raise BundleError(f"{shown} is not a bundle: it has no {MANIFEST}. {_remake(shown)}")
    remake = _remake(shown, overwrite=True)
    data = _read_json(folder, MANIFEST, shown)
    if data.get("format") != FORMAT:
        raise BundleError(f"{shown} is not a bundle: {MANIFEST} does not say {FORMAT!r}.")
    _require_readable(data.get("format_version"), shown)
    old = data["format_version"] < FORMAT_VERSION
    checkpoint = _read_json(folder, _CHECKPOINT, shown) if old else {}
    try:
        manifest = Manifest.from_dict(migrated(data, checkpoint) if old else data)
        missing = sorted({*manifest.required_files, _CHECKPOINT} - set(manifest.files))
        if missing:
            raise ValueError(f"lists no {missing[0]}")
        if manifest.default_loops not in manifest.loops:
            raise ValueError(f"default_loops={manifest.default_loops} is not one of its loops")
    except (KeyError, TypeError, ValueError, AttributeError, LoopditError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise BundleError(f"{shown}: {MANIFEST} {reason}. {remake}") from error
    return manifest


def _read_json(folder: Path, name: str, shown: str) -> dict[str, Any]:
    remake = _remake(shown, overwrite=True)
    try:
        data: Any = json.loads((folder / name).read_bytes())
    except FileNotFoundError as error:
        raise BundleError(f"{shown}: {name} is missing. {remake}") from error
    except (OSError, ValueError) as error:
        raise BundleError(f"{shown}: {name} is truncated or altered ({error}). {remake}") from error
    if not isinstance(data, dict):
        raise BundleError(f"{shown}: {name} was altered: it is no JSON object. {remake}")
    return data


def _require_readable(version: Any, shown: str) -> None:
    if version in READABLE_VERSIONS:
        return
    newer = isinstance(version, int) and version > FORMAT_VERSION
    remedy = "Install the loopdit that wrote it or a later one, or make it again" if newer else ""
    raise BundleError(
        f"{shown} has bundle format version {version}; this loopdit reads versions "
        f"{' and '.join(map(str, READABLE_VERSIONS))}. "
        f"{f'{remedy}: ' if remedy else 'Make it again: '}{_command(shown, overwrite=True)}"
    )


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
    return f"Make it with: {_command(shown, overwrite)}"


def _command(shown: str, overwrite: bool) -> str:
    suffix = " overwrite=true" if overwrite else ""
    return f"policy-export checkpoint=CHECKPOINT out={shown}{suffix}"
