"""The sockets of control mode: actions out, observations and commands in. Never waits.

The server binds all three; a robot connects to them, and shows its key where the server has `keys`.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import zmq

from loopdit.datasets.spec import PolicySpec
from loopdit.deploy.messages import Error, ErrorCode, Message, WireError
from loopdit.deploy.protocol import MAX_HEADER_BYTES, decode, encode
from loopdit.deploy.robot.control.messages import CONTROL_WIRE, Action, Observed, Status
from loopdit.deploy.security.curve import NO_KEYS, Admission, ClientKeys, CurveKeys
from loopdit.errors import ServerError

# A subscriber that does not read loses what it cannot keep; the newest second is enough for one
# that reads late.
_KEPT_ACTIONS = 64
# Only the newest observation is looked at.
_KEPT_OBSERVATIONS = 4
_LINGER_MS = 200
_CLOSING_MS = 100
_ROOM = 8  # of tensors that are refused with their name rather than by their size
_KEPT_COMMANDS = 64
_COMMANDS_A_TICK = 8


@dataclass(frozen=True)
class ControlEndpoints:
    """Where commands are taken, actions published and observations taken, and what a client of this
    machine shows there."""

    commands: str
    actions: str
    observations: str
    keys: ClientKeys = NO_KEYS


class ControlSockets:
    """The three of them, bound, and who may come to them."""

    def __init__(self, at: ControlEndpoints, keys: CurveKeys | None, spec: PolicySpec) -> None:
        """With `keys`, whoever comes to any of them shows one that is known. `spec` says how large
        an observation can be. `endpoints` are those of `at`, with the ports that were free for 0.

        Raises ServerError where an address is taken.
        """
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        declared = sum(math.prod(t.shape) * 8 for t in spec.observations)
        self._admission = Admission(self._context, keys) if keys is not None else None
        try:
            self.commands = Commands(self._context, at.commands, keys)
            self.publisher = Publisher(self._context, at.actions, keys)
            self.subscriber = Subscriber(self._context, at.observations, keys, _ROOM * declared)
        except BaseException:
            self.close(linger_ms=0)
            raise
        self.endpoints = replace(
            at,
            commands=self.commands.endpoint,
            actions=self.publisher.endpoint,
            observations=self.subscriber.endpoint,
        )

    def close(self, linger_ms: int = _CLOSING_MS) -> None:
        """End them, after so long at most for what is still to be sent. Again: nothing."""
        if self._admission is not None:
            self._admission.stop()
        self._context.destroy(linger=linger_ms)


class Publisher:
    """ACTION and STATUS, to whoever subscribes."""

    def __init__(
        self, context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str, keys: CurveKeys | None
    ) -> None:
        self._socket = _bound(context, zmq.PUB, endpoint, keys, _KEPT_ACTIONS)
        self.endpoint = _endpoint_of(self._socket)

    def send(
        self, message: Action | Status, tensors: Mapping[str, np.ndarray] | None = None
    ) -> None:
        """To all that are connected now."""
        self._socket.send_multipart(CONTROL_WIRE.encode(message, tensors), zmq.NOBLOCK)


class Subscriber:
    """OBSERVED, from any robot; one that is malformed is counted in `refused` and left out."""

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        endpoint: str,
        keys: CurveKeys | None,
        max_bytes: int,
    ) -> None:
        self._socket = _bound(context, zmq.SUB, endpoint, keys, _KEPT_OBSERVATIONS, max_bytes)
        self._socket.subscribe(b"")
        self._max_bytes = max_bytes
        self.endpoint = _endpoint_of(self._socket)
        self.refused = 0
        self.fault = ""  # of the last one that was refused

    def newest(self) -> tuple[Observed, dict[str, np.ndarray]] | None:
        """The latest observation that came since the last call; None where none did."""
        found = None
        while True:
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return found
            try:
                message, tensors = CONTROL_WIRE.decode(frames, self._max_bytes)
            except WireError as error:
                self.refuse(str(error))
                continue
            if isinstance(message, Observed):
                found = message, tensors

    def refuse(self, fault: str) -> None:
        """Count one that cannot be used."""
        self.refused += 1
        self.fault = fault


class Commands:
    """PING, ESTOP and RESET of the policy's own wire, each answered once."""

    def __init__(
        self, context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str, keys: CurveKeys | None
    ) -> None:
        self._socket = _bound(context, zmq.ROUTER, endpoint, keys, _KEPT_COMMANDS)
        self.endpoint = _endpoint_of(self._socket)

    def waiting(self) -> Iterator[tuple[bytes, Message]]:
        """The next few that came, and from whom. What is no message is answered here."""
        for _ in range(_COMMANDS_A_TICK):
            try:
                peer, *frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                message, _ = decode(frames, 0)
            except WireError as error:
                self.answer(peer, Error(error.seq, error.code, False, str(error)[:256]))
                continue
            yield peer, message

    def refuse(self, peer: bytes, message: Message) -> None:
        """Say that a message is of no kind that is answered here."""
        why = "a server in control mode answers PING, ESTOP and RESET."
        self.answer(peer, Error(message.seq, ErrorCode.UNKNOWN_KIND, False, why))

    def answer(self, peer: bytes, message: Message) -> None:
        """To whoever is still there and reads."""
        try:
            self._socket.send_multipart([peer, *encode(message)], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise


def _bound(
    context: "zmq.Context[zmq.Socket[bytes]]",
    kind: int,
    endpoint: str,
    keys: CurveKeys | None,
    kept: int,
    max_bytes: int = 0,
) -> "zmq.Socket[bytes]":
    bound = context.socket(kind)
    bound.setsockopt(zmq.MAXMSGSIZE, max_bytes + MAX_HEADER_BYTES)
    bound.setsockopt(zmq.LINGER, _LINGER_MS)
    bound.setsockopt(zmq.SNDHWM, kept)
    bound.setsockopt(zmq.RCVHWM, kept)
    bound.setsockopt(zmq.IPV6, int("[" in endpoint))
    if keys is not None:
        keys.secure_server(bound)
    try:
        bound.bind(endpoint)
    except zmq.ZMQError as error:
        bound.close()
        raise ServerError(
            f"cannot listen at {endpoint}: {error.strerror}. Choose another port, or 0 for any."
        ) from None
    return bound


def _endpoint_of(bound: "zmq.Socket[bytes]") -> str:
    return bound.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")
