"""A library that raises its own priority must not raise that of the program that calls it.

SVT-AV1, run by root (as in most containers), moves the thread that starts it and all threads of its
own to real time, priority 99 of 99, and leaves them there: from the first video written on, every
program beside it, a robot's control loop too, would only get what such a process leaves.
"""

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress


@contextmanager
def keeping_priority() -> Generator[None]:
    """Gives back to the calling thread, and gives to threads begun meanwhile, the scheduling that
    the caller came with. Other threads are left alone. Does nothing outside Linux."""
    if not os.path.isdir("/proc/self/task"):
        yield
        return
    before = _threads()
    policy, parameter = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        for thread in {0, *(_threads() - before)}:
            with suppress(ProcessLookupError):  # it has ended
                if os.sched_getscheduler(thread) != policy:
                    os.sched_setscheduler(thread, policy, parameter)


def _threads() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/task")}
