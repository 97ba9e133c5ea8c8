"""How `policy-serve` speaks: to people, or as one JSON object a line to what collects logs.

As text, what it serves and does goes to standard output as it is, and warnings to standard error
with their time. As JSON, both are objects with `time` (UTC), `level`, `logger` and `message`.
"""

import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime

TEXT, JSON = "text", "json"
_TEXT_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def configured(log: str) -> Callable[[str], None]:
    """Set up logging on standard error; what says a line on standard output."""
    if log == TEXT:
        logging.basicConfig(format=_TEXT_FORMAT)
        return _say
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(handlers=[handler], force=True)
    logging.captureWarnings(True)
    formatter = JsonFormatter()

    def say(line: str) -> None:
        record = logging.LogRecord("policy-serve", logging.INFO, "", 0, line, None, None)
        _say(formatter.format(record))

    return say


class JsonFormatter(logging.Formatter):
    """A record as one line."""

    def format(self, record: logging.LogRecord) -> str:
        """With `exception`, the traceback, where there is one."""
        facts = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            facts["exception"] = self.formatException(record.exc_info)
        return json.dumps(facts)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
