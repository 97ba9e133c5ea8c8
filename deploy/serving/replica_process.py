"""A replica in a process of this machine, at the other end of a pipe: one that ends is noticed at
once, by the end of its pipe."""

import logging
import math
import multiprocessing
import signal
import sys
from multiprocessing.connection import Connection
from typing import Any

from loopdit.deploy.serving.replica_side import Recipe, ReplicaSide, looks
from loopdit.deploy.serving.served_policy import ReplicaLost

_END_S = 5.0
# Not forked: a fork would share the runtimes' threads and the server's sockets.
_SPAWN = multiprocessing.get_context("spawn")


class ReplicaProcess:
    """See `replica.Place`."""

    def __init__(self, recipe: Recipe) -> None:
        self._connection, remote = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_run, args=(remote, recipe), daemon=True)
        self._process.start()
        remote.close()

    @property
    def alive(self) -> bool:
        """Whether its process is there."""
        return self._process.is_alive()

    @property
    def process_id(self) -> int | None:
        """Of the operating system."""
        return self._process.pid

    def begin(self, method: str, *arguments: object) -> None:
        """See `Place.begin`."""
        if not self.alive:
            raise self._lost(begun=False)
        try:
            self._connection.send((method, arguments))
        except OSError as error:
            raise self._lost(begun=False) from error

    def result(self, within_s: float = math.inf) -> Any:
        """See `Place.result`."""
        try:
            if any(self._connection.poll(look_s) for look_s in looks(within_s)):
                return self._connection.recv()
        except (EOFError, OSError) as error:
            raise self._lost() from error
        self._process.kill()
        raise ReplicaLost(f"the process that computed did not answer within {within_s:.1f} s.")

    def close(self) -> None:
        """End the process; it exits by itself when its pipe closes."""
        self._connection.close()
        self._process.join(_END_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _lost(self, begun: bool = True) -> ReplicaLost:
        self._process.join(_END_S)
        status = self._process.exitcode
        return ReplicaLost(f"the process that computed ended by itself (status {status}).", begun)


def _run(connection: Connection, recipe: Recipe) -> None:
    # The server's to handle: it ends its replicas when it has drained.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    side = ReplicaSide(recipe)
    try:
        while True:
            method, arguments = connection.recv()
            connection.send(getattr(side, method)(*arguments))
    except (EOFError, BrokenPipeError):
        sys.exit(0)  # the server closed it, or is gone
