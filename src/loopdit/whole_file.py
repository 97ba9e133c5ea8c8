"""Write files so that a name never holds half of one, and find out early that one cannot."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from loopdit.errors import ConfigError


@contextmanager
def whole_file(path: Path) -> Generator[Path]:
    """A path beside `path` to write to; it becomes `path` when the block ends without an error.

    Written aside, synced, renamed: a crash or a full disk leaves what was there before, and
    nothing beside it. Raises OSError as the writing does.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield aside
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        aside.chmod(0o644)  # some writers leave their files to their owner alone
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Return when a file, or the names in a folder (a rename is not until then), are on the
    disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_folder(folder: Path) -> None:
    """Make the folder `out=` names, and raise ConfigError now if nothing can be written there."""
    probe = folder / f".writable.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        reason = "it is a file" if folder.is_file() else error.strerror
        raise ConfigError(
            f"cannot write to out={folder}: {reason}. Name a folder that can be written to."
        ) from error
