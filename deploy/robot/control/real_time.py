"""What a thread can do to be on time: its priority."""

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
