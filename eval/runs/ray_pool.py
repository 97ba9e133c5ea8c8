"""Run jobs on a Ray cluster: the same as `worker_pool.ProcessPool`, beyond one machine.

Ray decides where workers run. `RAY_ADDRESS` names a cluster that is there, whose machines have the
same loopdit installed and see the same files; without it one is started on this machine.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Generic

from loopdit.errors import ConfigError, LoopditError
from loopdit.eval.runs.worker_pool import (
    ATTEMPTS,
    Finished,
    JobT,
    ResultT,
    Start,
    WorkerFailed,
    plain_error,
)


class _Worker(Generic[JobT, ResultT]):
    """Runs in a process of Ray's. Opens everything at the first job, so that what goes wrong then
    is told as an error of the job."""

    def __init__(self, start: Start[JobT, ResultT]) -> None:
        self._start = start
        self._work: Any = None

    def work(self, job: JobT) -> ResultT:
        """One job, done."""
        try:
            if self._work is None:
                self._work = self._start()
            return self._work(job)
        except LoopditError as error:
            raise plain_error(error) from error


class RayPool(Generic[JobT, ResultT]):
    """`workers` actors. One that dies is replaced and its job done again, which is counted.

    Raises ConfigError where Ray is not installed or its cluster cannot be reached.
    """

    def __init__(self, start: Start[JobT, ResultT], workers: int) -> None:
        self._ray = _ray()
        self._start = start
        self._count = workers
        self._ours = not self._ray.is_initialized()
        if self._ours:
            self._connect()
        self._actor: Any = self._ray.remote(num_cpus=1, max_restarts=0)(_Worker)
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Any, JobT, int]] = {}  # by future: actor, job, workers lost

    def run(self, jobs: Iterable[JobT]) -> Iterator[Finished[JobT, ResultT]]:
        """See Pool."""
        waiting, again = iter(jobs), deque[tuple[JobT, int]]()
        while True:
            while len(self._busy) < self._count:
                if again:
                    self._give(*again.popleft())
                    continue
                try:
                    self._give(next(waiting), 0)
                except StopIteration:
                    break
            if not self._busy:
                return
            (future,), _ = self._ray.wait(list(self._busy), num_returns=1)
            actor, job, died = self._busy.pop(future)
            try:
                result: ResultT = self._ray.get(future)
            except self._ray.exceptions.RayActorError:
                if died + 1 < ATTEMPTS:
                    again.append((job, died + 1))
                else:
                    yield Finished(job, None, died + 1)
            except self._ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, LoopditError):
                    raise error.cause from None
                raise WorkerFailed(f"in a worker:\n{error}") from None
            else:
                self._idle.append(actor)
                yield Finished(job, result, died)

    def close(self) -> None:
        """See Pool."""
        for actor in [*self._idle, *(actor for actor, _, _ in self._busy.values())]:
            self._ray.kill(actor)
        self._idle.clear()
        self._busy.clear()
        if self._ours:
            self._ray.shutdown()

    def _give(self, job: JobT, died: int) -> None:
        actor = self._idle.pop() if self._idle else self._actor.remote(self._start)
        self._busy[actor.work.remote(job)] = (actor, job, died)

    def _connect(self) -> None:
        address = os.environ.get("RAY_ADDRESS")
        settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        if not address:
            settings |= {"num_cpus": self._count, "include_dashboard": False}
        try:
            self._ray.init(address=address, **settings)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"launcher=ray cannot reach RAY_ADDRESS={address or '(not set)'}: {error}. Start "
                f"a cluster with ray start --head, or use launcher=processes."
            ) from error


def _ray() -> Any:
    try:
        import ray  # pyright: ignore[reportMissingImports] - an extra
    except ModuleNotFoundError as error:
        raise ConfigError(
            "launcher=ray needs Ray, which is not installed here. Install it with: "
            "pip install 'loopdit[ray]', or use launcher=processes."
        ) from error
    return ray
