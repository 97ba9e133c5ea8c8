"""What every process started to share the work owes its parent: to end with it, and to leave
Ctrl-C to it."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from multiprocessing import resource_tracker


def end_with_parent() -> None:
    """Called in the child: a child whose parent was killed would wait for work for ever."""
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def interrupts_deferred() -> Generator[None]:
    """Ctrl-C reaches the whole process group, and only the parent shall act on it: processes that
    are started in here inherit the blocked signal. One that arrives meanwhile is acted on after."""
    # The first process that is spawned starts this one, which unblocks the signal again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
