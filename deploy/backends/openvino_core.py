"""OpenVINO's entry, once for the whole process and to its end."""

from functools import cache

import openvino


@cache
def openvino_core() -> openvino.Core:
    """The one Core of this process.

    Its CPU plugin gives the thread that first uses it another stack for signal handlers, and frees
    that stack with itself. Freed by another thread (a bundle that is replaced, a cycle that the
    garbage collector finds there) the first one keeps the address, and the next signal, a service
    manager's SIGTERM too, kills the process in the place of calling its handler (seen with 2026.4).
    """
    return openvino.Core()
