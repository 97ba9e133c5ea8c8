"""Write a bundle so that its name never holds half of one.

Everything is built in a hidden folder beside the target, synced to the disk, and renamed last.
Whatever ends the block early (a refusal, Ctrl+C, a full disk) leaves the target as it was and
nothing beside it.
"""

import json
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from loopdit.deploy.bundle import is_bundle
from loopdit.deploy.manifest import MANIFEST, Manifest
from loopdit.errors import BundleError
from loopdit.whole_file import whole_file


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
            _sync(staging)
            require_free(target, overwrite)  # somebody may have been quicker
            _move_into_place(staging, target)
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


def _sweep(target: Path) -> None:
    """Remove what killed exports to the same name left behind."""
    for stale in target.parent.glob(f".{target.name}.exporting-*"):
        try:
            os.kill(int(stale.name.rpartition("-")[2]), 0)  # 0 asks whether it lives
        except ProcessLookupError:
            shutil.rmtree(stale, ignore_errors=True)
        except (ValueError, PermissionError):
            continue  # not ours to judge


def _sync(folder: Path) -> None:
    """Files, then the folder that names them: else a power cut leaves names without contents."""
    for path in [*folder.iterdir(), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


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
    descriptor = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    shutil.rmtree(replaced, ignore_errors=True)
