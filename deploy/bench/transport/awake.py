"""Cores that never fall asleep, so that a round trip is not the time in which they wake.

    python -m loopdit.deploy.bench.transport.awake CORE

computes nothing on that core, at the priority that gives way to everything else (SCHED_IDLE), until
its standard input ends. A core without work halts, and on a virtual machine it takes the host tens
of microseconds to bring it back: several times in each round trip, and more often for a wire with
more threads on its way.
"""

import os
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from loopdit.deploy.bench.transport.with_parent import end_with_parent
from loopdit.errors import ConfigError


@contextmanager
def awake_cores() -> Generator[Sequence[int]]:
    """All that this process may run on, which are given, until it is left.

    Raises ConfigError where the system has no such priority.
    """
    if not hasattr(os, "SCHED_IDLE"):
        raise ConfigError("awake=true needs Linux, for its priority SCHED_IDLE. Leave it out.")
    cores = sorted(os.sched_getaffinity(0))
    module = [sys.executable, "-m", "loopdit.deploy.bench.transport.awake"]
    spinning = [
        subprocess.Popen([*module, str(core)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for core in cores
    ]
    try:
        for process in spinning:
            assert process.stdout is not None  # it is a pipe
            process.stdout.readline()  # it has begun
        yield cores
    finally:
        for process in spinning:
            process.kill()
            process.communicate()


def main() -> None:
    """Keep one core awake."""
    end_with_parent()
    os.sched_setaffinity(0, {int(sys.argv[1])})
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    sys.stdout.write("awake\n")
    sys.stdout.flush()
    while True:
        pass


if __name__ == "__main__":
    main()
