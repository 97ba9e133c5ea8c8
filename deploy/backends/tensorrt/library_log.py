"""What a library says while it parses, builds and runs, for our log and our error messages."""

import logging
from typing import Any

from loopdit.deploy.backends.tensorrt.library import Library

logger = logging.getLogger(__name__)


class LibraryLog:
    """What a library says, kept for error messages and passed on to our log.

    `native` is the object that it wants; it must outlive every builder and runtime made with it.
    """

    def __init__(self, library: Library) -> None:
        self._errors: list[str] = []
        levels = library.module.ILogger.Severity
        errors = (levels.INTERNAL_ERROR, levels.ERROR)
        kept = self._errors

        class Native(library.module.ILogger):
            def __init__(self) -> None:
                library.module.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if severity in errors:
                    kept.append(message.strip())
                    logger.debug("%s: %s", library.title, message)
                elif severity == levels.WARNING:
                    logger.debug("%s warns: %s", library.title, message)

        self.native: Any = Native()

    def reason(self) -> str:
        """The first error since this was asked last, on one line; later ones follow from it."""
        first = " ".join(self._errors[0].split()) if self._errors else "no reason was given"
        self._errors.clear()
        return first
