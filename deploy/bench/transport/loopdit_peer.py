"""Ours: a PolicyServer with zeros, and PolicyClients over TCP, IPC, shared memory and CURVE.

All but CURVE talk to one server of its own each, with default options.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from loopdit.datasets.spec import Observation
from loopdit.deploy.bench.transport.workload import CHUNK, SPEC
from loopdit.deploy.client import PolicyClient
from loopdit.deploy.security.access import Access
from loopdit.deploy.security.curve import server_keys
from loopdit.deploy.security.keys import make_keys
from loopdit.deploy.serving.server import PolicyServer
from loopdit.deploy.serving.zeros_policy import ZerosPolicy

_SERVER, _ROBOT, _CLIENTS = "server", "robot", "clients"


class LoopditPeer:
    """`scheme` is tcp or ipc; `folder` is one to put the socket and the keys into."""

    what = "policy-serve policy=zeros and its client"

    def __init__(self, scheme: str, shared_memory: bool, curve: bool) -> None:
        self._scheme = scheme
        self._shared_memory = shared_memory
        self._curve = curve

    def missing(self) -> str:
        """It is here."""
        return ""

    def prepare(self, folder: Path) -> None:
        """Make the keys of both sides."""
        if self._curve:
            make_keys(folder, _SERVER)
            make_keys(folder / _CLIENTS, _ROBOT)

    def serve(self, folder: Path, ready: Callable[[str], None]) -> None:
        """Until the process is ended."""
        access = None
        if self._curve:
            secret = folder / f"{_SERVER}.key_secret"
            access = Access(keys=server_keys(str(secret), str(folder / _CLIENTS)))
        endpoint = f"ipc://{folder}/socket" if self._scheme == "ipc" else "tcp://127.0.0.1:0"
        server = PolicyServer(ZerosPolicy(SPEC, CHUNK[0]), endpoint, access=access)
        server.start()
        ready(server.endpoint)
        while server.running:
            time.sleep(1.0)

    def connect(
        self, folder: Path, address: str, until: ExitStack
    ) -> Callable[[Observation], np.ndarray]:
        """A function that makes one round trip."""
        keys = folder / _CLIENTS / f"{_ROBOT}.key_secret" if self._curve else ""
        server_key = folder / f"{_SERVER}.key" if self._curve else ""
        client = until.enter_context(
            PolicyClient(
                address, keys=keys, server_key=server_key, shared_memory=self._shared_memory
            )
        )
        wanted = "shared memory" if self._shared_memory else self._scheme
        if client.transport != wanted:
            raise RuntimeError(f"the client talks over {client.transport}, not {wanted}.")
        return lambda observation: client.infer(observation).actions
