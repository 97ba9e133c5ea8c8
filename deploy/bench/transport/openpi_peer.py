"""openpi: its own client, where it is installed, and a server with its server's wire behaviour.

The server is written anew, as the real one (openpi `src/openpi/serving/websocket_policy_server.py`)
comes with the whole model stack: a websocket without compression, a greeting with metadata, one
msgpack map there and one back. `pip install --no-deps openpi-client` installs the client; it asks
for numpy below 2 and works with numpy 2.
"""

import asyncio
import importlib
import importlib.util
import os
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from loopdit.datasets.spec import Observation
from loopdit.deploy.bench.transport.workload import FRONT, STATE, WRIST, no_op_policy
from loopdit.deploy.doors.msgpack_numpy import packed, unpacked

_IMAGE, _WRIST, _STATE = "observation/image", "observation/wrist_image", "observation/state"
# A folder with the unpacked wheels of openpi-client and what it needs.
FOLDER_VARIABLE = "OPENPI_CLIENT"


def real_client_is_here() -> bool:
    """Whether openpi-client can be imported, from OPENPI_CLIENT=FOLDER or as installed."""
    folder = os.environ.get(FOLDER_VARIABLE, "")
    if folder and folder not in sys.path:
        sys.path.append(folder)
    return all(importlib.util.find_spec(name) for name in ("openpi_client", "msgpack"))


class OpenPiPeer:
    """See the module."""

    def __init__(self) -> None:
        self._real = real_client_is_here()
        self.what = (
            "the real openpi-client, a server with the wire behaviour of openpi's"
            if self._real
            else "client and server with openpi's wire behaviour (openpi-client is not installed)"
        )

    def missing(self) -> str:
        """Why it cannot be measured here; empty: it can."""
        if importlib.util.find_spec("websockets") is None:
            return "websockets is not installed: pip install websockets"
        return ""

    def prepare(self, folder: Path) -> None:
        """Nothing to prepare."""

    def serve(self, folder: Path, ready: Callable[[str], None]) -> None:
        """Until the process is ended."""
        from websockets.asyncio.server import ServerConnection, serve

        pack, unpack = self._codec()

        async def answer(connection: ServerConnection) -> None:
            await connection.send(pack({}))
            async for message in connection:
                began = time.monotonic()
                asked = unpack(message)
                actions = no_op_policy(asked[_IMAGE], asked[_WRIST], asked[_STATE])
                timing = {"infer_ms": (time.monotonic() - began) * 1e3}
                await connection.send(pack({"actions": actions, "server_timing": timing}))

        async def run() -> None:
            async with serve(answer, "127.0.0.1", 0, compression=None, max_size=None) as server:
                ready(str(next(iter(server.sockets)).getsockname()[1]))
                await server.serve_forever()

        asyncio.run(run())

    def connect(
        self, folder: Path, address: str, until: ExitStack
    ) -> Callable[[Observation], np.ndarray]:
        """A function that makes one round trip."""
        ask = (self._real_client if self._real else self._own_client)(address, until)

        def round_trip(observation: Observation) -> np.ndarray:
            request = {
                _IMAGE: observation[FRONT],
                _WRIST: observation[WRIST],
                _STATE: observation[STATE],
            }
            return ask(request)["actions"]

        return round_trip

    def _codec(self) -> tuple[Callable[[Any], bytes], Callable[[Any], Any]]:
        if not self._real:
            return packed, unpacked
        theirs = importlib.import_module("openpi_client.msgpack_numpy")
        return theirs.packb, theirs.unpackb

    def _real_client(self, address: str, until: ExitStack) -> Callable[[Any], Any]:
        module = importlib.import_module("openpi_client.websocket_client_policy")
        with warnings.catch_warnings():
            # It connects in a way that websockets deprecates.
            warnings.simplefilter("ignore", DeprecationWarning)
            client = module.WebsocketClientPolicy("127.0.0.1", int(address))
        until.callback(client._ws.close)
        return client.infer

    def _own_client(self, address: str, until: ExitStack) -> Callable[[Any], Any]:
        from websockets.sync.client import connect

        opened = connect(f"ws://127.0.0.1:{address}", compression=None, max_size=None)
        connection = until.enter_context(opened)
        connection.recv()

        def ask(request: Any) -> Any:
            connection.send(packed(request))
            return unpacked(bytes(connection.recv(decode=False)))

        return ask
