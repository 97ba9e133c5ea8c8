"""What a process can do to be on time: its priority, and Python's garbage collector."""

import gc
import os

_PRIORITY = 10  # of 1 to 99: above ordinary programs, below the kernel's own threads


def raised_priority() -> bool:
    """Ask for real-time scheduling of the calling thread; whether that was granted.

    It needs CAP_SYS_NICE or an rtprio limit (man limits.conf); without, the loop runs as any other.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))
    except (AttributeError, OSError):
        return False
    return True


def freeze_garbage() -> None:
    """No collection from here on but those of `collect_young`: one of all generations stops every
    thread for as long as there are objects, tens of milliseconds with torch loaded."""
    gc.collect()
    gc.freeze()
    gc.disable()


def collect_young() -> None:
    """The youngest generation, which is what a loop may leave: microseconds."""
    gc.collect(0)


def thaw_garbage() -> None:
    """As it was."""
    gc.unfreeze()
    gc.enable()
