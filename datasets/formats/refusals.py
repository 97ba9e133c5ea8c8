"""Whatever a reader stumbles over in foreign files is a refusal that names them, not a traceback.

Readers look for what is likely and refuse it with its key and a remedy. Files hold more than anyone
looks for: JSON of another shape, text that is not UTF-8, links in a circle, sizes of terabytes. The
libraries that parse them raise what they raise, so that much is caught in one place, where the
episode is known.
"""

import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from zipfile import BadZipFile

from loopdit.errors import LoopditError, StoreError

_STUMBLES = (
    *(ArithmeticError, AttributeError, LookupError, MemoryError, OSError, RuntimeError),
    *(SyntaxError, TypeError, ValueError, BadZipFile, zlib.error),
)


@contextmanager
def refusing(where: str, remedy: str) -> Generator[None]:
    """Raise StoreError naming `where` and `remedy` for what parsing foreign files raises."""
    try:
        yield
    except LoopditError:
        raise
    except _STUMBLES as error:
        said = " ".join(str(error).split()) or "no reason is given"
        raise StoreError(
            f"{where} cannot be read: {said:.200} ({type(error).__name__}). {remedy}"
        ) from error


def is_file(path: Path) -> bool:
    """Whether there is a file. A name that no file can have, which pathlib raises for, is none."""
    try:
        return path.is_file()
    except OSError:
        return False
