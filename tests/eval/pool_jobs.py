"""Work for a pool whose processes die: jobs are words, and some of them are deadly."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

from loopdit.deploy.messages import WireError


class Work:
    """ "echo:x" gives "x"; "die-once:FILE" kills its process unless FILE is there, and makes it."""

    def __call__(self, job: str) -> str:
        word, _, rest = job.partition(":")
        if word == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if word == "abort":
            os.abort()
        if word == "die-once" and not Path(rest).exists():
            Path(rest).touch()
            os._exit(3)
        if word == "refuse":
            raise WireError("INTERNAL", "the server refused")
        if word == "bug":
            raise ZeroDivisionError("in the depths")
        if word == "pid":
            return str(os.getpid())
        if word == "deaf":  # whether Ctrl-C would reach it
            return str(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        return rest


def start() -> Callable[[str], str]:
    return Work()


def start_dying() -> Callable[[str], str]:
    os._exit(7)
