"""One process at a time in a folder: a lock that the kernel frees when its holder dies."""

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from loopdit.errors import LoopditError


@contextmanager
def alone_in(folder: Path, refusal: LoopditError) -> Generator[None]:
    """Hold `folder`, which exists, meanwhile. Raises `refusal` when another process has it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise refusal from None
        yield
    finally:
        os.close(descriptor)
