"""Where loopdit keeps what it can make again: decoded episodes, unpacked bundles, engines."""

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """The folder `name` in the cache, which may not be there yet: LOOPDIT_CACHE says where, else it
    is the user's own cache."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("LOOPDIT_CACHE") or Path(home, "loopdit"), name)
