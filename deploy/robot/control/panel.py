"""The buttons of a server: emergency stop, release, reset. For a person, or a program that watches.

    python -m loopdit.deploy.robot.control.panel stop
    python -m loopdit.deploy.robot.control.panel release tcp://127.0.0.1:5555
    python -m loopdit.deploy.robot.control.panel stop tcp://robot:5555 me.key_secret server.key

`stop` and `release` work in both modes of `policy-serve`, `reset` lifts a watchdog's stop in
control mode. Where none answers, nothing is known, and the robot's own button is the one to press.
Imports numpy, pyzmq and msgspec only; a program of your own uses `OperatorLink`.
"""

import sys
from contextlib import closing

from loopdit.deploy.operation.operator_link import OperatorLink
from loopdit.deploy.security.curve import client_keys
from loopdit.deploy.wire.dealer_link import DealerLink
from loopdit.errors import LoopditError

DEFAULT_ADDRESS = "tcp://127.0.0.1:5555"
_USAGE = (
    "panel: error: say stop, release or reset, and maybe the server's address, and where it wants "
    "to see keys, your NAME.key_secret and the server's NAME.key."
)


def operator(address: str, keys: str = "", server_key: str = "") -> OperatorLink:
    """A line to the server at `address`. Raises WireError for what is no address, ConfigError for
    files that are no keys."""
    return OperatorLink(DealerLink(address, *client_keys(keys, server_key)), address)


def main() -> None:
    """A button, and an address and keys where they are not the usual ones."""
    button, *where = sys.argv[1:] or [""]
    if button not in ("stop", "release", "reset") or len(where) not in (0, 1, 3):
        sys.exit(_USAGE)
    try:
        with closing(operator(*(where or [DEFAULT_ADDRESS]))) as line:
            match button:
                case "stop":
                    done = line.stop(True, "the panel")
                case "release":
                    done = line.stop(False)
                case _:
                    done = line.reset()
    except LoopditError as error:
        sys.exit(f"panel: error: {error} Press the robot's own button.")
    sys.stdout.write(f"{button}: {done}\n")


if __name__ == "__main__":
    main()
