"""OpenVINO's entry, once for the whole process and to its end.

Its CPU plugin gives the thread that first uses it another stack for signal handlers, and frees that
stack with itself. Freed by another thread (a bundle that is replaced, a cycle that the garbage
collector finds there) the first one keeps the address, and the next signal, a service manager's
SIGTERM too, kills the process in the place of calling its handler (seen with 2026.4).
"""

import openvino

# Made by the import, which two threads cannot do twice.
CORE = openvino.Core()
