"""An environment served over wire LDE1, so that a program in another Python can drive it.

    python -m loopdit.eval.env_server env=metaworld/reach-v3 endpoint=tcp://127.0.0.1:5600

It runs in a suite's own virtual environment: numpy, pyzmq, msgspec and the suite are all it needs.
One thread, one environment, one client at a time; what is answered is decided in `env_driver.py`.
It listens on loopback addresses only, as the policy's server does: reach it from another machine
through an SSH tunnel.
"""

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Mapping

import numpy as np
import zmq

from loopdit.deploy.messages import Error, WireError
from loopdit.deploy.protocol import MAX_HEADER_BYTES
from loopdit.deploy.security.endpoints import check_endpoint
from loopdit.errors import ConfigError, LoopditError, ServerError
from loopdit.eval.env_driver import MAX_REQUEST_BYTES, Driver, MakeEnvironment
from loopdit.eval.env_messages import ENV_WIRE, EnvMessage


class EnvServer:
    """Binds `endpoint`; `serve` answers until it is told to stop, from the thread that calls it.

    Raises ServerError when it cannot listen there. `endpoint` says the port in use.
    """

    def __init__(self, driver: Driver, endpoint: str) -> None:
        self._driver = driver
        self._stopping = threading.Event()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 1000)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_REQUEST_BYTES + MAX_HEADER_BYTES)
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError as fault:
            self._context.destroy(linger=0)
            raise ServerError(
                f"cannot serve an environment at {endpoint}: {fault.strerror}. "
                "Choose another endpoint=tcp://127.0.0.1:PORT."
            ) from None
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")

    def serve(self) -> None:
        """Answer until `stop`."""
        try:
            while not self._stopping.is_set():
                if not self._socket.poll(200, zmq.POLLIN):
                    continue
                peer, *frames = self._socket.recv_multipart()
                answer = self._driver.receive(peer, frames)
                if answer is not None:
                    message, tensors = answer
                    self._send(peer, message, tensors)
        finally:
            self._driver.close()
            self._context.destroy()

    def stop(self) -> None:
        """Make `serve` return, within a fifth of a second; from any thread."""
        self._stopping.set()

    def _send(self, peer: bytes, message: EnvMessage, tensors: Mapping[str, np.ndarray]) -> None:
        try:
            frames = ENV_WIRE.encode(message, tensors)
        except WireError as fault:  # an observation of a dtype that the wire does not carry
            frames = ENV_WIRE.encode(Error(message.seq, fault.code, False, str(fault)))
        with contextlib.suppress(zmq.ZMQError):  # a client that is gone hears nothing
            self._socket.send_multipart([peer, *frames])


def main() -> None:
    """Serve one environment until the client that started this ends, or for ever."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    try:
        options = _options(sys.argv[1:])
        endpoint = options["endpoint"]
        if not endpoint.startswith("ipc://"):
            endpoint = check_endpoint(endpoint)
        name = options["env"]
        server = EnvServer(Driver(name, _maker(name), time.monotonic), endpoint)
    except LoopditError as fault:
        sys.exit(f"env_server: error: {fault}")
    if options["orphan"] == "exit":
        threading.Thread(target=_exit_with_parent, daemon=True).start()
    else:
        sys.stdout.write(f"{name} is served at {server.endpoint}. Stop it with Ctrl-C.\n")
        sys.stdout.flush()
    with contextlib.suppress(KeyboardInterrupt):
        server.serve()


def _options(arguments: list[str]) -> dict[str, str]:
    """name=value by hand: Hydra is not in a suite's environment."""
    options = {"env": "", "endpoint": "tcp://127.0.0.1:5600", "orphan": "stay"}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals or name not in options:
            raise ConfigError(f"{argument!r} is not one of: env=NAME, endpoint=tcp://HOST:PORT.")
        options[name] = value
    if not options["env"]:
        raise ConfigError("env= is missing: name the environment to serve.")
    return options


def _maker(name: str) -> MakeEnvironment:
    from loopdit.envs.suites.catalogue import make_here, suite_of

    if suite_of(name):
        return lambda image_size: make_here(name, image_size)
    from loopdit.envs.registry import make_env

    return lambda image_size: make_env(name, image_size)


def _exit_with_parent() -> None:
    """The parent holds the other end of our standard input: it closes however the parent ends."""
    while os.read(0, 4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
