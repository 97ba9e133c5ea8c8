"""The robot's side of control mode: what is observed goes out, actions come in.

    with RobotLink() as link:
        while running:
            link.observe({"images.front": rgb, "proprio": felt})
            done = link.action(timeout_s=0.02)
            robot.command(done.action if done else hold)

It has a watchdog of its own, because a server that is stopped or cut off cannot say so: without an
action for `watchdog_s` it is latched, and no action is handed out until `reset`. Imports numpy,
pyzmq and msgspec only. One link belongs to one thread.
"""

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zmq

from loopdit.datasets.spec import Observation
from loopdit.deploy.protocol import MAX_HEADER_BYTES
from loopdit.deploy.robot.control.messages import CONTROL_WIRE, Action, Observed
from loopdit.deploy.security.curve import client_keys
from loopdit.deploy.wire.dealer_link import connect
from loopdit.deploy.wire.handshakes import Handshakes

_MAX_BYTES = 1 << 20  # of actions
_KEPT = 64
_LINGER_MS = 100


@dataclass(frozen=True)
class Commanded:
    """An action (A,) float32 to carry out now; `message` says where it comes from and when it was
    due."""

    action: np.ndarray
    message: Action


class RobotLink:
    """Connects to a server in control mode. `lost` counts actions that were published and never
    came, `stopped` is whether the watchdog is latched. `keys` (this robot's NAME.key_secret) and
    `server_key` (the server's NAME.key) are files, for a server that wants to see keys. Raises
    ConfigError for files that are none, WireError for what is no address."""

    def __init__(
        self,
        actions: str = "tcp://127.0.0.1:5557",
        observations: str = "tcp://127.0.0.1:5558",
        watchdog_s: float = 0.5,
        *,
        keys: str | Path = "",
        server_key: str | Path = "",
    ) -> None:
        own, theirs = client_keys(keys, server_key)
        self._watchdog_s = watchdog_s
        context = zmq.Context.instance()
        self._actions = context.socket(zmq.SUB)
        self._actions.setsockopt(zmq.RCVHWM, _KEPT)
        self._actions.setsockopt(zmq.MAXMSGSIZE, _MAX_BYTES + MAX_HEADER_BYTES)
        self._actions.subscribe(b"")
        self._observations = context.socket(zmq.PUB)
        self._observations.setsockopt(zmq.SNDHWM, 2)  # an old observation is of no use
        self._observations.setsockopt(zmq.LINGER, _LINGER_MS)
        self._handshakes = Handshakes(self._actions, actions, secured=own is not None)
        try:
            for socket, address in ((self._actions, actions), (self._observations, observations)):
                socket.setsockopt(zmq.IPV6, int("[" in address))
                if own is not None:
                    own.secure_client(socket, theirs)
                connect(socket, address)
        except BaseException:
            self.close()
            raise
        self._seq = 0
        self._heard_s: float | None = None
        self.applied = 0
        self.episode = 0
        self.lost = 0
        self.stopped = False

    def __enter__(self) -> "RobotLink":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def observe(self, observation: Observation, instruction: str = "") -> None:
        """Publish what is observed now, after the latest action that was handed out."""
        self._seq += 1
        message = Observed(
            self._seq, applied=self.applied, episode=self.episode, instruction=instruction
        )
        arrays = {name: np.asarray(value) for name, value in observation.items()}
        with contextlib.suppress(zmq.Again):
            self._observations.send_multipart(CONTROL_WIRE.encode(message, arrays), zmq.NOBLOCK)

    def action(self, timeout_s: float) -> Commanded | None:
        """The next action, waiting for it at most so long; None where none comes, or the watchdog
        is latched. An action of an earlier episode is left out. Raises WireError(HANDSHAKE) where
        the two sides do not accept each other's keys."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            left_ms = max(0, round((deadline_s - time.monotonic()) * 1e3))
            if not self._actions.poll(left_ms, zmq.POLLIN):
                self._handshakes.require_accepted()
                self._watch()
                return None
            message, tensors = CONTROL_WIRE.decode(self._actions.recv_multipart(), _MAX_BYTES)
            if not isinstance(message, Action):
                continue
            self._watch()
            self._heard_s = time.monotonic()
            if self.applied and message.seq > self.applied + 1:
                self.lost += message.seq - self.applied - 1
            self.applied = message.seq
            if not self.stopped and message.episode == self.episode:
                return Commanded(tensors["action"].copy(), message)

    def begin_episode(self) -> None:
        """Another episode: the server forgets what it planned."""
        self.episode += 1

    def reset(self) -> None:
        """Somebody has looked: the watchdog begins anew."""
        self.stopped, self._heard_s = False, None

    def close(self) -> None:
        """Free the sockets."""
        self._handshakes.close()
        self._actions.close(linger=0)
        self._observations.close()

    def _watch(self) -> None:
        heard_s = self._heard_s
        if heard_s is not None and time.monotonic() - heard_s > self._watchdog_s:
            self.stopped = True
