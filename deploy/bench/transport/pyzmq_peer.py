"""The yardstick: pyzmq alone moves the same frames, DEALER to ROUTER and back.

No session, no check, no header but some bytes of the same length; sockets with pyzmq's defaults but
for ROUTER_MANDATORY, without which replies can be lost.
"""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import zmq

from loopdit.datasets.spec import Observation
from loopdit.deploy.bench.transport.workload import CHUNK, FRAME, no_op_policy

_HEADER = bytes(120)
_TIMEOUT_MS = 5000


class PyzmqPeer:
    """See the module."""

    what = f"pyzmq {zmq.__version__} alone, the same frames"

    def missing(self) -> str:
        """It is here: the client needs it."""
        return ""

    def prepare(self, folder: Path) -> None:
        """Nothing to prepare."""

    def serve(self, folder: Path, ready: Callable[[str], None]) -> None:
        """Until the process is ended."""
        router = zmq.Context().socket(zmq.ROUTER)
        router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        ready(f"tcp://127.0.0.1:{router.bind_to_random_port('tcp://127.0.0.1')}")
        while True:
            peer, header, front, wrist, state = router.recv_multipart()
            actions = no_op_policy(
                np.frombuffer(front, np.uint8).reshape(FRAME),
                np.frombuffer(wrist, np.uint8).reshape(FRAME),
                np.frombuffer(state, np.float32),
            )
            router.send_multipart([peer, header, actions.data])

    def connect(
        self, folder: Path, address: str, until: ExitStack
    ) -> Callable[[Observation], np.ndarray]:
        """A function that makes one round trip."""
        dealer = until.enter_context(zmq.Context.instance().socket(zmq.DEALER))
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.setsockopt(zmq.RCVTIMEO, _TIMEOUT_MS)
        dealer.connect(address)

        def round_trip(observation: Observation) -> np.ndarray:
            dealer.send_multipart([_HEADER, *(frame.data for frame in observation.values())])
            _, actions = dealer.recv_multipart()
            return np.frombuffer(actions, np.float32).reshape(CHUNK)

        return round_trip
