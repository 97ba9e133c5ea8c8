"""A link within the server's own process, for its doors: frames change hands, nothing is copied."""

import queue
import time
from collections.abc import Callable, Sequence

from loopdit.deploy.protocol import Frame


class LocalLink:
    """`post` takes the frames of a message, () when this side leaves; replies come to `replies`."""

    def __init__(
        self,
        post: Callable[[Sequence[Frame]], None],
        replies: "queue.SimpleQueue[Sequence[Frame]]",
    ) -> None:
        self._post = post
        self._replies = replies

    def send(self, frames: Sequence[Frame], deadline_s: float) -> bool:
        """Always taken."""
        self._post(frames)
        return True

    def has_message(self) -> bool:
        """Whether `receive` would not have to wait."""
        return not self._replies.empty()

    def receive(self, deadline_s: float) -> Sequence[Frame] | None:
        """The frames of the next reply; None where there is none by `deadline_s` (monotonic)."""
        try:
            return self._replies.get(timeout=max(0.0, deadline_s - time.monotonic()))
        except queue.Empty:
            return None

    def close(self, linger_s: float = 0.0) -> None:
        """Leave: the server forgets the session."""
        self._post(())
