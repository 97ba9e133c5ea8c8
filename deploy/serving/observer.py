"""What whoever watches a server is told: its counters, its live page, its recorder."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from loopdit.deploy.serving.answers import Job
from loopdit.deploy.serving.dispatcher import Reply


class Observer(Protocol):
    """Called in the server's I/O thread, so within microseconds; what it raises ends the server."""

    def replying(self, replies: Sequence[Reply], job: Job | None) -> None:
        """These are sent next; `job` is the finished inference that they answer, if one.

        Its observations lie in memory that their senders use again after the reply: copy them.
        """
        ...

    def turned(self, epochs: Mapping[int, int]) -> None:
        """All that has come is dealt with: the open sessions now, and the epoch of each."""
        ...
