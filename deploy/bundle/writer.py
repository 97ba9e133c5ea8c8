"""Write a bundle so that its name never holds half of one.

Everything is built in a hidden folder beside the target, synced to the disk, and renamed last; for
a target that ends in .zip, what is renamed is the zip of that folder. Whatever ends the block early
(a refusal, Ctrl+C, a full disk) leaves the target as it was and nothing beside it.
"""

import json
import os
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from loopdit.deploy.bundle.archive import ARCHIVE_SUFFIX, pack
from loopdit.deploy.bundle.bundle import Bundle, is_bundle
from loopdit.deploy.bundle.manifest import MANIFEST, Manifest
from loopdit.errors import BundleError
from loopdit.whole_file import sync, whole_file

# What says that a latency was measured on the same machine: whoever moves a bundle to another has
# both tables.
_MACHINE = ("cpu", "architecture", "cores", "gpu")


@contextmanager
def staged_bundle(out: str | Path, overwrite: bool) -> Generator[Path]:
    """An empty folder to build in, which becomes `out` when the block ends without an error.

    Raises BundleError when `out` is taken (before the block, so that no work is lost), and for a
    disk that refuses the writing.
    """
    target = Path(out).resolve()  # a link to a bundle goes on being one
    require_free(target, overwrite)
    staging = target.parent / f".{target.name}.exporting-{os.getpid()}"
    try:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _sweep(target)
            staging.mkdir()
            yield staging
            made = _packed(staging) if target.suffix == ARCHIVE_SUFFIX else staging
            _sync(staging)
            require_free(target, overwrite)  # somebody may have been quicker
            _move_into_place(made, target)
        except OSError as error:
            raise BundleError(
                f"cannot write the bundle {out}: {error.strerror or error}. "
                f"Free some space, or choose another out=."
            ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def require_free(out: Path, overwrite: bool) -> None:
    """Raise BundleError unless `out` is free, or is a bundle that may be overwritten."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not is_bundle(out):  # never delete what is not ours, whatever overwrite says
        raise BundleError(f"out={out} exists and is not a bundle. Choose another name for it.")
    if not overwrite:
        raise BundleError(
            f"out={out} holds a bundle already. Choose another name, or add overwrite=true."
        )


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write or replace `manifest.json` in one step."""
    with whole_file(folder / MANIFEST) as aside:
        aside.write_text(json.dumps(manifest.to_dict(), indent=1) + "\n")


def with_latency(path: str | Path, table: Mapping[str, Any]) -> Manifest:
    """Add a table of measured latency to the bundle at `path`, in the place of the one that was
    measured on the same machine; returns the manifest that it has now.

    table: {"rows": [...], "machine": ..., "versions": ..., "commit": ...}, plain JSON types, as
    `machine_and_versions` describes a machine. Whoever reads meanwhile has the old manifest or the
    new one. Raises BundleError: no such bundle, or it cannot be written.
    """
    bundle = Bundle.open(path)
    others = [kept for kept in bundle.manifest.latency if _machine(kept) != _machine(table)]
    manifest = replace(bundle.manifest, latency=(*others, dict(table)))
    if Path(path).is_file():
        with staged_bundle(path, overwrite=True) as staging:
            for name in bundle.files:
                shutil.copyfile(bundle.path / name, staging / name)
            write_manifest(staging, manifest)
        return manifest
    try:
        write_manifest(bundle.path, manifest)
    except OSError as error:
        raise BundleError(
            f"cannot write the latency table into {path}: {error.strerror or error}. Free some "
            f"space, or copy the bundle to where it can be written."
        ) from error
    return manifest


def _machine(table: Mapping[str, Any]) -> list[Any]:
    return [table["machine"].get(key) for key in _MACHINE]


def _sweep(target: Path) -> None:
    """Remove what killed exports to the same name left behind."""
    for stale in target.parent.glob(f".{target.name}.exporting-*"):
        try:
            os.kill(int(stale.name.rpartition("-")[2]), 0)  # 0 asks whether it lives
        except ProcessLookupError:
            shutil.rmtree(stale, ignore_errors=True)
        except (ValueError, PermissionError):
            continue  # not ours to judge


def _packed(staging: Path) -> Path:
    """The zip of what is in `staging`, in there too, so that it is swept with it."""
    names = [path.name for path in staging.iterdir()]
    archive = staging / f".packed{ARCHIVE_SUFFIX}"
    pack(staging, archive, names)
    return archive


def _sync(folder: Path) -> None:
    """Files, then the folder that names them: else a power cut leaves names without contents."""
    for path in [*folder.iterdir(), folder]:
        sync(path)


def _move_into_place(staging: Path, target: Path) -> None:
    replaced = target.parent / f".{target.name}.replaced-{os.getpid()}"
    if target.exists():
        target.rename(replaced)
    try:
        staging.rename(target)
    except OSError:
        with suppress(OSError):
            replaced.rename(target)  # the old bundle is better than none
        raise
    sync(target.parent)
    if replaced.is_file():
        replaced.unlink()
    shutil.rmtree(replaced, ignore_errors=True)
