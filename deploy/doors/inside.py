"""What a door leads to: a server that may still be warming up, and sessions of it.

A door is open before the policy is warm, so that a port in use shows at once, and whoever comes
early waits rather than fails.
"""

import threading
from collections.abc import Callable, Mapping

from loopdit.datasets.spec import PolicySpec
from loopdit.deploy.client import PolicyClient
from loopdit.deploy.doors.door_session import DoorSession
from loopdit.errors import ServerError


class Inside:
    """`connect` opens a session of a server that answers, such as
    `lambda: PolicyClient(link=server.connect())`; `spec` and `horizon` are the policy's."""

    def __init__(self, connect: Callable[[], PolicyClient], spec: PolicySpec, horizon: int) -> None:
        self._connect = connect
        self.spec = spec
        self.horizon = horizon
        self._decided = threading.Event()
        self._closed = False

    @property
    def warming(self) -> bool:
        """Whether it does not answer yet."""
        return not self._decided.is_set()

    def begin(self) -> None:
        """From now on it answers."""
        self._decided.set()

    def session(self, keys: Mapping[str, str]) -> DoorSession:
        """One for a client that calls things by `keys`, as soon as it answers. Raises ServerError
        where it stops before that."""
        self._decided.wait()
        if self._closed:
            raise ServerError("the server is stopping.")
        return DoorSession(self._connect(), keys)

    def close(self) -> None:
        """Nobody is let in any more; those who wait are told."""
        self._closed = True
        self._decided.set()
