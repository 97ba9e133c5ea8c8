"""Where a server may listen: this machine alone, unless it knows its clients by their keys.

tcp://HOST:PORT    a loopback address, or any other with keys
ipc://PATH         a socket in the file system, for programs of this machine
"""

import ipaddress
from pathlib import Path
from urllib.parse import urlsplit

from loopdit.errors import ConfigError

_MAX_PATH = 107  # bytes: what the kernel takes for a socket's name


def check_endpoint(endpoint: str, trusted: bool = False) -> str:
    """`endpoint` in the form that ZeroMQ binds.

    `trusted`: its clients show keys, or its user said that it is open to the network. Raises
    ConfigError for another form, and for an address that others reach unless trusted.
    """
    if endpoint.startswith("ipc://"):
        return _checked_path(endpoint)
    try:
        host, port = host_and_port(endpoint)
    except ValueError:
        raise ConfigError(
            f"endpoint {endpoint!r} is not of the form tcp://HOST:PORT with a port of 0 to 65535, "
            "nor ipc://PATH."
        ) from None
    if host == "localhost":
        host = "127.0.0.1"
    if not trusted and not is_loopback(host):
        raise ConfigError(
            f"{endpoint}: {host} is not this machine's loopback address, and anybody who reaches "
            "it could command the robot. Make keys with: policy-serve keys out=FOLDER, and give "
            "curve.keys= and curve.clients=; or say open_to_network=true if that is meant."
        )
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def host_and_port(endpoint: str) -> tuple[str, int]:
    """Of tcp://HOST:PORT. Raises ValueError for another form."""
    parts = urlsplit(endpoint)
    if parts.scheme != "tcp" or not parts.hostname or parts.port is None:
        raise ValueError(f"{endpoint!r} is not of the form tcp://HOST:PORT.")
    return parts.hostname, parts.port


def is_loopback(host: str) -> bool:
    """Whether `host`, a number and no name, is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_of(endpoint: str) -> str:
    """The host of a tcp:// endpoint; the loopback address for any other."""
    return host_and_port(endpoint)[0] if endpoint.startswith("tcp://") else "127.0.0.1"


def reaches_only_this_machine(endpoint: str) -> bool:
    """Whether a client of `endpoint` talks to its own machine."""
    if endpoint.startswith("ipc://"):
        return True
    try:
        host, _ = host_and_port(endpoint)
    except ValueError:
        return False
    return host == "localhost" or is_loopback(host)


def _checked_path(endpoint: str) -> str:
    path = endpoint.removeprefix("ipc://")
    if not path or path == "*" or len(path.encode()) > _MAX_PATH:
        raise ConfigError(
            f"endpoint {endpoint!r} names no socket: give ipc://PATH of 1 to {_MAX_PATH} bytes."
        )
    folder = Path(path).parent
    if not path.startswith("@") and not folder.is_dir():
        raise ConfigError(f"endpoint {endpoint}: there is no folder {folder}. Make it first.")
    return endpoint
