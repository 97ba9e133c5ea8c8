"""Write a file so that its name never holds half of one."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


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
