"""Bytes on a disk that count only for the key they were written under.

A first line of JSON says the key and the sha256 of what follows. What is damaged, or was written
for something else (another GPU, another version), is treated as absent, with a log line that says
so: whoever asked makes it again. It is never used on trust, because what reads these bytes is a
library that may crash on bad ones.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path

from loopdit.errors import BundleError
from loopdit.whole_file import whole_file

logger = logging.getLogger(__name__)


def read_keyed(path: Path, key: Mapping[str, str]) -> bytes | None:
    """What was written under `key`, None where there is nothing usable."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        logger.warning("%s cannot be read (%s); it is made again", path, error.strerror)
        return None
    line, _, payload = content.partition(b"\n")
    try:
        header = json.loads(line)
        found, sha256 = dict(header["key"]), header["sha256"]
    except (ValueError, KeyError, TypeError):
        logger.warning("%s is damaged: it has no header; it is made again", path)
        return None
    if sha256 != hashlib.sha256(payload).hexdigest():
        logger.warning("%s is damaged: it is not what was written; it is made again", path)
        return None
    for name in sorted({*found, *key}):
        if found.get(name) != key.get(name):
            logger.warning(
                "%s is of %s=%s, wanted is %s; it is made again",
                *(path, name, found.get(name), key.get(name)),
            )
            return None
    return payload


def write_keyed(path: Path, key: Mapping[str, str], payload: bytes) -> None:
    """Write whole or not at all. Raises BundleError when the disk is full or refuses."""
    header = {"key": dict(key), "sha256": hashlib.sha256(payload).hexdigest()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as aside:
            aside.write_bytes(json.dumps(header).encode() + b"\n" + payload)
    except OSError as error:
        raise unwritable(path, error) from error


def require_writable(folder: Path) -> None:
    """Raise BundleError now if nothing can be written there, rather than after minutes."""
    probe = folder / ".writable"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(probe) as aside:
            aside.touch()
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error


def unwritable(path: Path, error: OSError) -> BundleError:
    """The error for a cache that cannot be written to."""
    return BundleError(
        f"cannot write to the cache {path}: {error.strerror}. Make room or give permission there, "
        f"or name a folder on another disk: LOOPDIT_CACHE=FOLDER."
    )
