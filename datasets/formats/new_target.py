"""Write a new data set, one file or a folder of them, whole or not at all."""

import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from loopdit.errors import StoreError


@contextmanager
def new_target(path: Path) -> Generator[Path]:
    """A free path beside `path` to make a file or a folder at; it becomes `path` at the end.

    Whatever ends the block early leaves nothing at either. Raises StoreError where something is
    at `path` already, and for every OSError within: readers turn theirs into StoreError.
    """
    target = path.absolute()
    try:
        _require_free(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as aside:
            made = Path(aside, target.name)
            yield made
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
