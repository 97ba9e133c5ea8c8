"""Batches in the order of their steps, read ahead by threads.

Threads and not processes: copying frames and decoding JPEGs release the interpreter's lock, and
nothing has to be pickled or copied again. A batch is a function of its step, so how many threads
read changes nothing but the speed.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, Self

from loopdit.datasets.windows import Batch
from loopdit.errors import ConfigError


class Sampler(Protocol):
    """What batches are read from: a function of their steps."""

    def batch(self, step: int, part: tuple[int, int] = (0, 1)) -> Batch:
        """The batch of a step, or one process's part (rank, world) of it. Called by threads."""
        ...


class Batches(Iterator[Batch]):
    """The batches of steps `first_step`, `first_step` + 1 and so on, without end.

    `workers` threads keep at most 2 * workers batches ready or in the making; with 0 each is read
    when it is asked for. `part` (rank, world) is the slice of every batch that this process has.
    What a thread raises is raised by `next`, at the step it belongs to. A context manager.
    """

    def __init__(
        self,
        sampler: Sampler,
        first_step: int,
        workers: int,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        if workers < 0:
            raise ConfigError(f"workers is {workers}. Use 0 or more.")
        self._sampler = sampler
        self._part = part
        self._step = first_step  # the next to be given out
        self._ahead = 2 * workers
        self._pool = ThreadPoolExecutor(workers, "batches") if workers else None
        self._waiting: deque[Future[Batch]] = deque()
        self._closed = False

    def __next__(self) -> Batch:
        if self._closed:
            raise StopIteration
        step = self._step
        if self._pool is None:
            batch = self._sampler.batch(step, self._part)
        else:
            while len(self._waiting) < self._ahead:
                ahead = step + len(self._waiting)
                self._waiting.append(self._pool.submit(self._sampler.batch, ahead, self._part))
            try:
                batch = self._waiting.popleft().result()
            except BaseException as error:
                error.add_note(f"while reading the batch of step {step}")
                self.close()
                raise
        self._step += 1
        return batch

    def close(self) -> None:
        """Stop reading ahead; returns when no thread is at work any more."""
        self._closed = True
        self._waiting.clear()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()
