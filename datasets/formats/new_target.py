"""Write a new data set, one file or a folder of them, whole or not at all."""

import errno
import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from loopdit.errors import StoreError
from loopdit.folder_lock import alone_in

DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def new_target(path: Path) -> Generator[Path]:
    """A free path beside `path` to make a file or a folder at; it becomes `path` at the end.

    Whatever ends the block early leaves nothing at either; after a kill -9 a hidden folder stays
    beside `path` until the next to write there removes it. Raises StoreError where something is
    at `path` already, and for every OSError within: readers turn theirs into StoreError.
    """
    target = path.absolute()
    try:
        _require_free(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{target.name}.unfinished-"
        _remove_abandoned(target.parent, prefix)
        busy = StoreError(f"another process removed what was being written of {path}. Try again.")
        with (
            tempfile.TemporaryDirectory(prefix=prefix, dir=target.parent) as aside,
            alone_in(Path(aside), busy),
        ):
            made = Path(aside, target.name)
            try:
                yield made
            except StoreError as error:
                # It may say that a part is there and can be gone on with, by the name aside.
                if isinstance(error.__cause__, OSError) and error.__cause__.errno in DISK_IS_FULL:
                    raise error.__cause__ from error
                raise
            for item in (*Path(aside).rglob("*"), Path(aside)):
                _sync(item)
            _require_free(target)
            os.rename(made, target)
        _sync(target.parent)
    except OSError as error:
        raise StoreError(
            f"cannot write {path}: {error.strerror or error}. Nothing was left there; choose a "
            f"path that can be written, on a disk with space."
        ) from error


def _remove_abandoned(parent: Path, prefix: str) -> None:
    """What processes that were killed left: nobody holds its lock."""
    for folder in parent.glob(f"{escape(prefix)}*"):
        with suppress(StoreError, OSError), alone_in(folder, StoreError("it is being written")):
            shutil.rmtree(folder)


def _require_free(target: Path) -> None:
    if target.is_symlink() or target.exists():
        raise StoreError(
            f"cannot write {target}: something is there already. Remove it, or choose another path."
        )


def _sync(item: Path) -> None:
    """Return when a file, or the names in a folder, are on the disk."""
    descriptor = os.open(item, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
