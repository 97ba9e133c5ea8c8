"""Run a module as a program that is beside something else: `python -m ... MODULE ARGUMENTS`.

It gives way to its parent for the processor, and is ended when its parent dies, by kill -9 too:
otherwise a resumed training would meet the evaluation of the one that was killed.
"""

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1  # of Linux's prctl
_NICENESS = 10


def main() -> None:
    """Entry point."""
    os.nice(_NICENESS)
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before that
            sys.exit(1)
    module = sys.argv[1]
    sys.argv = [module, *sys.argv[2:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
