"""What looks on in control mode, such as a recorder: by the thread that ticks, so never wait."""

from typing import Protocol

from loopdit.deploy.robot.control.controller import Acted
from loopdit.deploy.robot.control.seen_history import Seen


class ControlObserver(Protocol):
    """Steps are counted as in `controller`."""

    def seen(self, seen: Seen) -> None:
        """An observation that can be used; its arrays are nobody else's, and nobody writes them."""
        ...

    def acted(self, step: int, acted: Acted) -> None:
        """What was published for this step."""
        ...
