"""Run jobs one after another here, or side by side in processes that may die.

Every worker calls `start()` once, which opens whatever is expensive and gives the function that
does one job; both must survive pickling. Knows nothing of what a job is. What comes back is in
the order of finishing: who needs another order sorts.

An own pool over one pipe for each worker, and no library: the parent knows which job a dead
worker had, which executors do not tell (`BrokenProcessPool` loses all of them), and a worker that
is killed holds no lock that others wait for, as it can with a shared queue.
"""

import multiprocessing
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, Protocol, TypeVar

from loopdit.errors import LoopditError
from loopdit.eval.runs.worker_process import end_with_parent, interrupts_deferred

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")
Start = Callable[[], Callable[[JobT], ResultT]]

ATTEMPTS = 3  # a job that killed its worker this often is given up
_DEAD_STARTS = 3  # and so is the run when workers die this often before they were ready


class WorkerDied(LoopditError):
    """Worker processes end before they can do anything."""


class WorkerFailed(RuntimeError):
    """A job raised something that is no mistake of the user's; the text has its traceback."""


@dataclass(frozen=True)
class Finished(Generic[JobT, ResultT]):
    """`result` is None for a job that killed ATTEMPTS workers; `restarts` of them were replaced."""

    job: JobT
    result: ResultT | None
    restarts: int


class Pool(Protocol[JobT, ResultT]):
    """Does jobs. `run` takes the next one from `jobs` only when a worker is free for it."""

    def run(self, jobs: Iterable[JobT]) -> Iterator[Finished[JobT, ResultT]]:
        """Each job, done, as it finishes. Raises what a job or `start` raised."""
        ...

    def close(self) -> None:
        """End the workers now; jobs under way are lost."""
        ...


class InProcess(Generic[JobT, ResultT]):
    """No workers: one job after the other, here. What aborts takes this process with it."""

    def __init__(self, work: Callable[[JobT], ResultT]) -> None:
        self._work = work

    def run(self, jobs: Iterable[JobT]) -> Iterator[Finished[JobT, ResultT]]:
        """See Pool."""
        for job in jobs:
            yield Finished(job, self._work(job), restarts=0)

    def close(self) -> None:
        """Nothing to end."""


@dataclass(frozen=True)
class _Ready:
    """A worker's first message."""


@dataclass(frozen=True)
class _Result:
    value: Any


@dataclass(frozen=True)
class _Failure:
    error: Exception


class _Worker:
    """One process, its pipe, and the job it has, which `died` workers had before it."""

    def __init__(self, start: Start[Any, Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, start), daemon=True)
        with interrupts_deferred():
            self.process.start()
        theirs.close()  # so that its death reads as the end of the file
        self.ready = False
        self.job: Any = None
        self.died = 0

    def give(self, job: Any, died: int) -> None:
        self.job, self.died = job, died
        with suppress(BrokenPipeError, ConnectionResetError):  # dead: its end of the pipe says so
            self.connection.send(job)

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


class ProcessPool(Generic[JobT, ResultT]):
    """`workers` processes. One that dies is replaced and its job done again, which is counted."""

    def __init__(self, start: Start[JobT, ResultT], workers: int) -> None:
        self._start = start
        self._count = workers
        self._workers: list[_Worker] = []
        self._again: deque[tuple[JobT, int]] = deque()  # jobs of dead workers, and how many died
        self._dead_starts = 0

    def run(self, jobs: Iterable[JobT]) -> Iterator[Finished[JobT, ResultT]]:
        """See Pool."""
        waiting = iter(jobs)
        while True:
            self._hand_out(waiting)
            busy = {worker.connection: worker for worker in self._workers if worker.job is not None}
            if not busy:
                return
            for connection in wait(list(busy)):
                assert isinstance(connection, Connection)
                done = self._hear(busy[connection])
                if done is not None:
                    yield done

    def close(self) -> None:
        """See Pool."""
        for worker in self._workers:
            worker.end()
        self._workers.clear()

    def _hand_out(self, waiting: Iterator[JobT]) -> None:
        """A job for each worker without one, as long as there are any."""
        idle = deque(worker for worker in self._workers if worker.job is None)
        while idle or len(self._workers) < self._count:
            if self._again:
                job, died = self._again.popleft()
            else:
                try:
                    job, died = next(waiting), 0
                except StopIteration:
                    return
            if not idle:
                self._workers.append(_Worker(self._start))
                idle.append(self._workers[-1])
            idle.popleft().give(job, died)

    def _hear(self, worker: _Worker) -> Finished[JobT, ResultT] | None:
        """What a worker says, or its death. None where no job came to its end by it."""
        try:
            message: Any = worker.connection.recv()
        except (EOFError, OSError):
            return self._bury(worker)
        if isinstance(message, _Failure):
            raise message.error
        if isinstance(message, _Ready):
            worker.ready = True
            self._dead_starts = 0
            return None
        job, worker.job = worker.job, None
        return Finished(job, message.value, worker.died)

    def _bury(self, worker: _Worker) -> Finished[JobT, ResultT] | None:
        self._workers.remove(worker)
        worker.end()
        if not worker.ready:
            self._dead_starts += 1
            if self._dead_starts >= _DEAD_STARTS:
                raise WorkerDied(
                    f"{self._dead_starts} worker processes in a row ended before they were ready "
                    f"({_exit_text(worker.process.exitcode)}). Use workers=1 to see why; fewer "
                    f"workers need less memory."
                )
        died = worker.died + 1
        if died >= ATTEMPTS:
            return Finished(worker.job, None, died)
        self._again.append((worker.job, died))
        return None


def _exit_text(status: int | None) -> str:
    """How a process ended, for people."""
    return f"killed by signal {-status}" if status and status < 0 else f"exit status {status}"


def plain_error(error: LoopditError) -> LoopditError:
    """One of `loopdit.errors` with the same text: subclasses may not survive pickling."""
    kinds = type(error).__mro__
    return next(kind for kind in kinds if kind.__module__ == LoopditError.__module__)(str(error))


def _serve(connection: Connection, start: Start[Any, Any]) -> None:
    """The life of a worker process."""
    end_with_parent()
    try:
        work = start()
        connection.send(_Ready())
        while True:
            connection.send(_Result(work(connection.recv())))
    except EOFError:  # the parent closed the pipe
        return
    except LoopditError as error:
        connection.send(_Failure(plain_error(error)))
    except Exception:
        # It goes on in the parent, with the traceback that pickling would lose.
        connection.send(_Failure(WorkerFailed(f"in a worker:\n{traceback.format_exc()}")))
