"""Opens the doors that `policy-serve` was asked for, beside a running server."""

from collections.abc import Generator
from contextlib import ExitStack, closing, contextmanager

from loopdit.deploy.doors.inside import Inside
from loopdit.deploy.doors.key_names import parse_keys
from loopdit.errors import ConfigError

LOOPBACK = "127.0.0.1"


@contextmanager
def open_doors(
    inside: Inside,
    host: str,
    *,
    openpi_port: int = 0,
    openpi_keys: str = "",
    groot_port: int = 0,
    groot_keys: str = "",
) -> Generator[list[str]]:
    """The doors with a port, open within the block, whether or not the server answers yet; a line
    about each. Neither protocol encrypts: `host` is LOOPBACK unless the user said that the server
    is open to the network.

    Raises ConfigError, ServerError.
    """
    # Imported here: what a door needs is not needed without it.
    lines: list[str] = []
    with ExitStack() as doors:
        if openpi_port:
            try:
                from loopdit.deploy.doors.openpi import OpenPiDoor
            except ModuleNotFoundError as error:
                raise ConfigError(
                    f"openpi_port={openpi_port} needs {error.name}: pip install 'loopdit[serve]'"
                ) from error
            keys = parse_keys(openpi_keys)
            openpi = doors.enter_context(closing(OpenPiDoor(inside, host, openpi_port, keys)))
            lines.append(f"openpi    ws://{host}:{openpi.port}")
        if groot_port:
            from loopdit.deploy.doors.groot import GrootDoor

            keys = parse_keys(groot_keys, "groot_keys")
            groot = doors.enter_context(closing(GrootDoor(inside, host, groot_port, keys)))
            lines.append(f"groot     tcp://{host}:{groot.port}")
        doors.callback(inside.close)  # before the doors: nobody waits inside any more
        yield lines
