"""GR00T's way: ZeroMQ REQ/REP, one msgpack map each way, arrays as msgpack-numpy packs them.

Written anew from Isaac-GR00T's `gr00t/policy/server_client.py`, whose module brings the model
stack; its later serializer, which is the faster one. msgspec packs, no slower than msgpack.
"""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import zmq

from loopdit.datasets.spec import Observation
from loopdit.deploy.bench.transport.workload import FRONT, STATE, WRIST, no_op_policy
from loopdit.deploy.doors.groot_codec import MSGPACK_NUMPY, packed, unpacked

_TIMEOUT_MS = 5000


class GrootPeer:
    """See the module."""

    what = "REQ/REP with the wire behaviour of GR00T's client and server"

    def missing(self) -> str:
        """It is here: the client needs pyzmq."""
        return ""

    def prepare(self, folder: Path) -> None:
        """Nothing to prepare."""

    def serve(self, folder: Path, ready: Callable[[str], None]) -> None:
        """Until the process is ended."""
        rep = zmq.Context().socket(zmq.REP)
        ready(f"tcp://127.0.0.1:{rep.bind_to_random_port('tcp://127.0.0.1')}")
        while True:
            observation = unpacked(rep.recv())[0]["data"]["observation"]
            actions = no_op_policy(
                observation["video"]["front"][0, 0],
                observation["video"]["wrist"][0, 0],
                observation["state"]["state"][0, 0],
            )
            rep.send(packed([{"action": actions[None]}, {}], MSGPACK_NUMPY))

    def connect(
        self, folder: Path, address: str, until: ExitStack
    ) -> Callable[[Observation], np.ndarray]:
        """A function that makes one round trip."""
        req = until.enter_context(zmq.Context.instance().socket(zmq.REQ))
        req.setsockopt(zmq.LINGER, 0)
        req.setsockopt(zmq.RCVTIMEO, _TIMEOUT_MS)
        req.connect(address)

        def round_trip(observation: Observation) -> np.ndarray:
            nested = {
                "video": {
                    "front": observation[FRONT][None, None],
                    "wrist": observation[WRIST][None, None],
                },
                "state": {"state": observation[STATE][None, None]},
                "language": {},
            }
            request = {"endpoint": "get_action", "data": {"observation": nested, "options": None}}
            req.send(packed(request, MSGPACK_NUMPY))
            return unpacked(req.recv())[0][0]["action"][0]

        return round_trip
