"""What `policy-doctor` says of one thing that it looked at."""

from dataclasses import asdict, dataclass
from typing import Any

OK, NOTE, BROKEN = "ok", "note", "broken"


@dataclass(frozen=True)
class Finding:
    """state: OK; NOTE for what only some need, or what costs; BROKEN for what breaks serving.

    said: what was found. remedy: what to do about it, empty where there is nothing to do.
    """

    check: str
    state: str
    said: str
    remedy: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)
