"""What a client needs of whatever carries its messages: `DealerLink`, `LaneLink`, `LocalLink`."""

from collections.abc import Sequence
from typing import Protocol

from loopdit.deploy.protocol import Frame


class Link(Protocol):
    """Messages there and back. A deadline is a time of the monotonic clock, in seconds."""

    def send(self, frames: Sequence[Frame], deadline_s: float) -> bool:
        """Whether it was taken by then. Raises WireError when the other side is gone for good."""
        ...

    def has_message(self) -> bool:
        """Whether `receive` would not have to wait."""
        ...

    def receive(self, deadline_s: float) -> Sequence[Frame] | None:
        """The frames of the next message; None where there is none by then. Raises as `send`."""
        ...

    def close(self, linger_s: float = 0.0) -> None:
        """Free what it holds; what was sent has `linger_s` to leave."""
        ...
