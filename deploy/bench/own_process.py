"""An object in a process of its own, whose methods are called over a pipe.

Runtimes in one process fight for cores with their thread pools (measured: p50 up to three times
worse), so whatever is timed lives in such a child, which computes only while a call to it waits.
Knows nothing of what it holds.
"""

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from loopdit.errors import BundleError, LoopditError

_ANSWER_TIMEOUT_S = 600.0


class ChildProcess:
    """`make(*arguments)` in a child; everything that crosses the pipe is pickled.

    `name` is what errors call it. Raises the LoopditError that `make` raised, or BundleError where
    the child ended by itself.
    """

    def __init__(self, name: str, make: Callable[..., Any], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would share the runtimes' threads
        self._name = name
        self._connection, remote = context.Pipe()
        self._process = context.Process(target=_child, args=(remote, make, arguments))
        self._process.daemon = True
        self._process.start()
        remote.close()
        try:
            self._answer()
        except BaseException:
            self.close()
            raise

    def call(self, method: str, *arguments: Any) -> Any:
        """What the object's method returns; raises the LoopditError that it raised, after which
        the child goes on, or BundleError where the child ended by itself."""
        try:
            self._connection.send((method, *arguments))
        except (BrokenPipeError, OSError) as error:
            raise self._ended() from error
        return self._answer()

    def close(self) -> None:
        """End the child; it exits by itself when its pipe closes."""
        self._connection.close()
        self._process.join(timeout=5)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()

    def _answer(self) -> Any:
        try:
            if not self._connection.poll(_ANSWER_TIMEOUT_S):
                raise BundleError(
                    f"the {self._name} process did not answer in {_ANSWER_TIMEOUT_S:g} s. "
                    f"Leave it out, or give the machine some quiet."
                )
            answer = self._connection.recv()
        except (EOFError, ConnectionResetError) as error:
            raise self._ended() from error
        if isinstance(answer, LoopditError):
            raise answer
        return answer

    def _ended(self) -> BundleError:
        self._process.join(timeout=5)
        return BundleError(
            f"the {self._name} process ended by itself (exit status {self._process.exitcode}; "
            f"what it printed stands above). Leave it out, or free some memory."
        )


def _child(connection: Connection, make: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is the parent's to handle
    try:
        try:
            held = make(*arguments)
        except LoopditError as error:
            connection.send(error)
            return
        connection.send(None)
        while True:
            try:
                method, *given = connection.recv()
            except EOFError:
                return
            try:
                answer = getattr(held, method)(*given)
            except LoopditError as error:
                answer = error
            connection.send(answer)
    except BrokenPipeError:
        return  # the parent was stopped: nobody is left to answer
