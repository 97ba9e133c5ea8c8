"""What is compared, by name, and the process in which the server of each runs.

    python -m loopdit.deploy.bench.transport.peers NAME FOLDER

starts one, prints the address to connect to in one line, and serves until its standard input ends:
whoever started it may be killed, and nothing is left running.
"""

import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import numpy as np

from loopdit.datasets.spec import Observation
from loopdit.deploy.bench.transport.groot_peer import GrootPeer
from loopdit.deploy.bench.transport.lerobot_peer import LeRobotPeer
from loopdit.deploy.bench.transport.loopdit_peer import LoopditPeer
from loopdit.deploy.bench.transport.openpi_peer import OpenPiPeer
from loopdit.deploy.bench.transport.pyzmq_peer import PyzmqPeer
from loopdit.deploy.bench.transport.with_parent import end_with_parent


class Peer(Protocol):
    """One way to bring an observation to a policy and its chunk back."""

    what: str

    def missing(self) -> str:
        """Why it cannot be measured here; empty: it can."""
        ...

    def prepare(self, folder: Path) -> None:
        """What both sides need, into a folder of this peer's own."""
        ...

    def serve(self, folder: Path, ready: Callable[[str], None]) -> None:
        """Serve until the process is ended; `ready` is told the address."""
        ...

    def connect(
        self, folder: Path, address: str, until: ExitStack
    ) -> Callable[[Observation], np.ndarray]:
        """A function that makes one round trip and returns the chunk; `until` closes the rest."""
        ...


PEERS: dict[str, Callable[[], Peer]] = {
    "loopdit-tcp": lambda: LoopditPeer("tcp", shared_memory=False, curve=False),
    "loopdit-ipc": lambda: LoopditPeer("ipc", shared_memory=False, curve=False),
    "loopdit-shm": lambda: LoopditPeer("tcp", shared_memory=True, curve=False),
    "loopdit-curve": lambda: LoopditPeer("tcp", shared_memory=False, curve=True),
    "pyzmq-bare": PyzmqPeer,
    "openpi": OpenPiPeer,
    "groot-like": GrootPeer,
    "lerobot-grpc": LeRobotPeer,
}


def main() -> None:
    """Serve one of them."""
    name, folder = sys.argv[1:]
    end_with_parent()
    PEERS[name]().serve(Path(folder), _say)


def _say(address: str) -> None:
    sys.stdout.write(f"{address}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
