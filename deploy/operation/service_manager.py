"""Tells systemd that the service is ready, or stops: the protocol of sd_notify(3).

Does nothing where no service manager asked for it.
"""

import contextlib
import os
import socket

READY, STOPPING = "READY=1", "STOPPING=1"


def notify(state: str) -> None:
    """Send a state to the socket that NOTIFY_SOCKET names."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    name = f"\0{address[1:]}" if address.startswith("@") else address
    # A manager that is gone is no reason not to serve.
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out,
        contextlib.suppress(OSError),
    ):
        out.sendto(state.encode(), name)
