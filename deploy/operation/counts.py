"""What a server did since it started, in numbers: taken from the replies that it sends.

Counted in the server's I/O thread by adding to plain integers, and read by any other thread, which
may see a chunk counted in one place and not yet in another.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import msgspec

from loopdit.deploy.clock import Clock
from loopdit.deploy.messages import Chunk, Error, ErrorCode, EstopAck, Timing
from loopdit.deploy.serving.answers import Job
from loopdit.deploy.serving.dispatcher import Reply

# Upper bounds in microseconds, in the steps 1, 2, 5: from a check of an observation to a hung one.
BOUNDS_US = tuple(step * 10**power for power in range(1, 7) for step in (1, 2, 5))
PARTS: tuple[str, ...] = Timing.__struct_fields__
TOTAL = "total"  # all parts of a request together


@dataclass
class Histogram:
    """How many values were at most each of BOUNDS_US, the last place for those above all."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_US) + 1))
    sum_us: int = 0

    def add(self, value_us: int) -> None:
        """Count one value."""
        self.counts[bisect_left(BOUNDS_US, value_us)] += 1
        self.sum_us += value_us

    @property
    def cumulative(self) -> list[int]:
        """For each bound how many were at most that; last, how many there were."""
        return list(accumulate(self.counts))


class Counts:
    """An `Observer`. `chunks` by (loops, steps), `errors` by code, `histograms` by part of a
    request; `late` chunks were sent after the deadline that their request named."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.chunks: Counter[tuple[int, int]] = Counter()
        self.errors: Counter[str] = Counter()
        self.late = 0
        self.histograms = {part: Histogram() for part in (*PARTS, TOTAL)}
        self.stop = EstopAck(seq=0, pressed=False, reason="")

    @property
    def deadline_misses(self) -> int:
        """Chunks that were late, and requests that were refused because theirs would be."""
        return self.late + self.errors[ErrorCode.LATE]

    def replying(self, replies: Sequence[Reply], job: Job | None) -> None:
        """Count them."""
        for reply in replies:
            message = reply.message
            if isinstance(message, Chunk):
                self.chunks[message.loops, message.steps] += 1
                total_us = 0
                for part, took_us in zip(
                    PARTS, msgspec.structs.astuple(message.timing_us), strict=True
                ):
                    self.histograms[part].add(took_us)
                    total_us += took_us
                self.histograms[TOTAL].add(total_us)
                if job is not None and is_late(reply, job, self._clock.now):
                    self.late += 1
            elif isinstance(message, Error):
                self.errors[message.code] += 1
            elif isinstance(message, EstopAck):
                self.stop = message

    def turned(self, epochs: Mapping[int, int]) -> None:
        """Nothing to count."""


def is_late(reply: Reply, job: Job, now: float) -> bool:
    """Whether this chunk of a finished job comes after its request's deadline."""
    return any(
        now > request.deadline_s
        for request in job.requests
        if request.peer == reply.peer and request.obs.seq == reply.message.seq
    )
