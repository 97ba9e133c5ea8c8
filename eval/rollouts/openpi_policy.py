"""A policy behind openpi's server: its websocket protocol, without openpi's packages.

The server greets with a msgpack map of metadata. Each request is one msgpack map from its own keys
to arrays and the prompt, each answer a map with `actions` (H, A), or a string that says what went
wrong there. Arrays travel as openpi-client 0.1.2 packs them (`msgpack_numpy`): a map with the bytes
keys `__ndarray__`, `data`, `dtype` and `shape`, C order. Nothing is unpickled.

What the server says of itself has no shapes: whether it fits is seen from its first answer. It
knows neither loops nor noise seeds, so its chunks are reproducible only if it makes them so.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from loopdit.datasets.spec import Observation, PolicySpec
from loopdit.deploy.doors.key_names import INSTRUCTION, keys_for
from loopdit.deploy.doors.msgpack_numpy import packed, unpacked
from loopdit.errors import ConfigError, ServerError
from loopdit.eval.rollouts.rollout import Answer

SCHEME = "openpi://"
_DEFAULT_PORT = 8000
_MAX_ANSWER_BYTES = 64 * 1024 * 1024
_CONNECT_S = 5.0


class OpenPiClient:
    """A connection to an openpi server, opened here and again after it failed."""

    def __init__(self, address: str, timeout_s: float = 30.0) -> None:
        """`address` is openpi://HOST[:PORT]. Raises ServerError, ConfigError."""
        host = address.removeprefix(SCHEME)
        if not host or "/" in host:
            raise ConfigError(f"policy={address} is no address. Use openpi://HOST:PORT.")
        self.address = address
        self._url = f"ws://{host}" if ":" in host else f"ws://{host}:{_DEFAULT_PORT}"
        self._timeout_s = timeout_s
        self._open = ExitStack()
        self._connection: ClientConnection | None = None
        self.metadata: dict[str, Any] = {}
        self._connect()

    def infer(self, request: Mapping[str, Any]) -> np.ndarray:
        """The `actions` (H, A) float32 of the answer to `request`. Raises ServerError."""
        try:
            actions = self._answer(packed(request)).get("actions")
            return self._checked(actions)
        except BaseException:
            # openpi's server hangs up after an error; and after a late answer, the next one would
            # be the answer to the request before.
            self.close()
            raise

    def close(self) -> None:
        """Hang up. The next request connects again."""
        self._connection = None
        self._open.close()

    def _connect(self) -> ClientConnection:
        try:
            connection = self._open.enter_context(
                connect(
                    self._url,
                    compression=None,
                    max_size=_MAX_ANSWER_BYTES,
                    open_timeout=_CONNECT_S,
                    close_timeout=1,
                    ping_interval=None,  # openpi's server answers no ping while it computes
                    proxy=None,
                )
            )
        except (OSError, TimeoutError, ValueError, WebSocketException) as error:
            raise ServerError(
                f"no openpi server answers at {self.address} ({error}). Start one "
                f"(scripts/serve_policy.py of openpi), or check host and port."
            ) from error
        self._connection = connection
        try:
            self.metadata = self._received(connection, "its greeting")
        except BaseException:
            self.close()
            raise
        return connection

    def _answer(self, request: bytes) -> dict[str, Any]:
        connection = self._connection or self._connect()
        try:
            connection.send(request)
        except (OSError, WebSocketException) as error:
            raise ServerError(f"the openpi server at {self.address} hung up: {error}.") from error
        return self._received(connection, "its answer")

    def _received(self, connection: ClientConnection, what: str) -> dict[str, Any]:
        try:
            message = connection.recv(timeout=self._timeout_s)
        except TimeoutError as error:
            raise ServerError(
                f"the openpi server at {self.address} did not send {what} in "
                f"{self._timeout_s:g} s. See what it says."
            ) from error
        except (OSError, WebSocketException) as error:
            raise ServerError(
                f"the openpi server at {self.address} hung up before {what}: {error}."
            ) from error
        if isinstance(message, str):  # its traceback
            last = (message.strip().splitlines() or ["nothing"])[-1]
            raise ServerError(
                f"the openpi server at {self.address} failed: {last:.300}. If it misses a key, "
                f"set openpi_keys=OURS=THEIRS,..."
            )
        try:
            content = unpacked(message)
        except ValueError as error:
            raise ServerError(
                f"what {self.address} sent as {what} is not openpi's protocol: {error}."
            ) from error
        if not isinstance(content, dict):
            raise ServerError(
                f"what {self.address} sent as {what} is not openpi's protocol: a map was due, "
                f"and came as {type(content).__name__}."
            )
        return content

    def _checked(self, actions: Any) -> np.ndarray:
        plain = isinstance(actions, np.ndarray) and actions.ndim == 2 and len(actions) > 0
        if not plain:
            found = f"of shape {actions.shape}" if isinstance(actions, np.ndarray) else "missing"
            raise ServerError(
                f"the actions in the answer of {self.address} are {found}; (H, A) was due."
            )
        if not np.isfinite(actions).all():
            raise ServerError(f"the actions in the answer of {self.address} are not all finite.")
        return actions.astype(np.float32)


class OpenPiPolicy:
    """An openpi server as a policy for one environment. See `rollout.RolloutPolicy`."""

    looks = True
    history = 1
    committed = 0

    def __init__(self, client: OpenPiClient, spec: PolicySpec, keys: Mapping[str, str]) -> None:
        """`keys` as from `parse_keys`. Raises ConfigError where they do not fit `spec`."""
        self._client = client
        self._action_dim = spec.action.shape[0]
        self._keys = keys_for(spec, keys)

    def reset(self, seed: int) -> None:
        """The server keeps nothing of an episode."""

    def chunk(self, observation: Observation, instruction: str) -> Answer:
        """(H, A). Raises ServerError: also for a chunk of another robot's actions."""
        request: dict[str, Any] = {self._keys[name]: observation[name] for name in observation}
        actions = self._client.infer({**request, self._keys[INSTRUCTION]: instruction})
        if actions.shape[1] != self._action_dim:
            raise ServerError(
                f"the policy at {self._client.address} commands {actions.shape[1]} numbers and "
                f"the environment takes {self._action_dim}. Serve a policy for this robot."
            )
        return Answer(actions)
