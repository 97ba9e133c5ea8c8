"""A door for openpi's clients: its websocket protocol, as the published openpi-client speaks it.

The server greets with a msgpack map of metadata. Each request is one map of observations, each
answer one with `actions` (H, A) and `server_timing`; a mistake is answered by a text, which the
client raises. Each connection is a session and has a thread of its own, so a new client is greeted
and GET /healthz is answered while the policy computes.
"""

import contextlib
import http
import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve

from loopdit.deploy.doors.door_session import DoorSession, most_bytes, observation_spec
from loopdit.deploy.doors.inside import Inside
from loopdit.deploy.doors.key_names import INSTRUCTION, keys_for
from loopdit.deploy.doors.msgpack_numpy import packed, unpacked
from loopdit.errors import LoopditError, ServerError

HEALTH_PATH = "/healthz"
MAX_CONNECTIONS = 64
_LOG = logging.getLogger(__name__)
_OPEN_S = 5.0


class OpenPiDoor:
    """Listens at `host`:`port` (0: any that is free; see `port`) from here on; `close` ends it.

    `keys` maps our names to the clients' (`key_names`). Raises ServerError, ConfigError.
    """

    def __init__(
        self,
        inside: Inside,
        host: str,
        port: int,
        keys: Mapping[str, str],
    ) -> None:
        self._inside = inside
        self._keys = keys_for(inside.spec.recorded, keys)
        try:
            self._server: Server = serve(
                self._serve,
                host,
                port,
                compression=None,
                max_size=most_bytes(inside.spec),
                process_request=self._before_upgrade,
                open_timeout=_OPEN_S,
                close_timeout=1,
                ping_interval=None,  # openpi-client answers none while it computes
                server_header=None,
            )
        except OSError as error:
            raise ServerError(
                f"cannot listen for openpi's clients at {host}:{port}: {error.strerror}. Choose "
                "another openpi_port=."
            ) from error
        self.port: int = self._server.socket.getsockname()[1]
        self._open: set[ServerConnection] = set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="openpi-door", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Hang up on everybody."""
        self._server.shutdown()
        with self._lock:
            left = list(self._open)
        for connection in left:
            with contextlib.suppress(OSError, ConnectionClosed):
                connection.close(1001, "the server is stopping")
        self._thread.join()

    def _before_upgrade(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path == HEALTH_PATH:
            if self._inside.warming:
                return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "warming\n")
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        if len(self._open) >= MAX_CONNECTIONS:
            busy = http.HTTPStatus.SERVICE_UNAVAILABLE
            return connection.respond(busy, f"{MAX_CONNECTIONS} clients are connected.\n")
        return None

    def _greeting(self, session: DoorSession) -> bytes:
        spec = self._inside.spec
        return packed(
            {
                "observation_spec": observation_spec(spec, self._keys),
                "instruction_key": self._keys[INSTRUCTION],
                "action_horizon": self._inside.horizon,
                "action_dim": spec.action.shape[0],
                "action_frame": spec.action_frame,
                "control_period_s": spec.control_period_s,
                "model_id": session.model_id,
            }
        )

    def _serve(self, connection: ServerConnection) -> None:
        with self._lock:
            self._open.add(connection)
        try:
            with contextlib.closing(self._inside.session(self._keys)) as session:
                connection.send(self._greeting(session))
                for message in connection:
                    connection.send(_answer(session, message))
        except ConnectionClosed:
            pass
        except LoopditError as fault:  # the policy's server is gone, or is full
            with contextlib.suppress(ConnectionClosed):
                connection.send(str(fault))
        finally:
            with self._lock:
                self._open.discard(connection)


def _answer(session: DoorSession, message: str | bytes) -> bytes | str:
    """What to send back: bytes, or a text for a mistake."""
    began_s = time.monotonic()
    try:
        given: Any = unpacked(message) if isinstance(message, bytes) else None
        if not isinstance(given, dict):
            return "a request is one msgpack map, in a binary message."
        reply = session.chunk({_text(key): value for key, value in given.items()})
    except (ValueError, LoopditError) as fault:
        return str(fault)
    return packed(
        {
            "actions": reply.actions,
            "server_timing": {"infer_ms": (time.monotonic() - began_s) * 1e3},
            "policy_timing": {f"{name}_ms": us / 1e3 for name, us in reply.timing_us.items()},
            "loops": reply.loops,
            "steps": reply.steps,
            "model_id": reply.model_id,
        }
    )


def _text(key: Any) -> str:
    return key.decode(errors="replace") if isinstance(key, bytes) else str(key)
