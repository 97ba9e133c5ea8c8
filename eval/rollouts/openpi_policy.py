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

import msgspec
import numpy as np
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from loopdit.datasets.spec import IMAGE_PREFIX, PROPRIO, Observation, PolicySpec
from loopdit.errors import ConfigError, ServerError
from loopdit.eval.rollouts.rollout import Answer

SCHEME = "openpi://"
INSTRUCTION = "instruction"
# Our names, and what the LIBERO policies of openpi call the same; what is in neither this nor the
# option keeps its name.
DEFAULT_KEYS = {
    f"{IMAGE_PREFIX}front": "observation/image",
    f"{IMAGE_PREFIX}agentview": "observation/image",
    f"{IMAGE_PREFIX}wrist": "observation/wrist_image",
    f"{IMAGE_PREFIX}eye_in_hand": "observation/wrist_image",
    PROPRIO: "observation/state",
    INSTRUCTION: "prompt",
}
_ARRAY, _SCALAR = b"__ndarray__", b"__npgeneric__"
_PLAIN_KINDS = "biuf"  # bool, integers, floats: what an answer may be made of
_DEFAULT_PORT = 8000
_MAX_ANSWER_BYTES = 64 * 1024 * 1024
_CONNECT_S = 5.0


def parse_keys(text: str) -> dict[str, str]:
    """ "images.front=observation/image,instruction=prompt" -> from our names to the server's.

    Raises ConfigError.
    """
    keys: dict[str, str] = {}
    for pair in filter(None, text.split(",")):
        ours, _, theirs = pair.partition("=")
        if not (ours and theirs):
            raise ConfigError(
                f"openpi_keys={text}: {pair!r} is not OURS=THEIRS, "
                f"such as images.front=observation/image."
            )
        keys[ours] = theirs
    return keys


def keys_for(spec: PolicySpec, given: Mapping[str, str]) -> dict[str, str]:
    """The server's key of each observation of `spec` and of the instruction: as `given`, or as in
    DEFAULT_KEYS, or the same.

    Raises ConfigError where `given` names what is not there, or two go by one key.
    """
    ours = [*(tensor.name for tensor in spec.observations), INSTRUCTION]
    for name in given:
        if name not in ours:
            raise ConfigError(
                f"openpi_keys names {name!r}, which the environment does not have. "
                f"It has: {', '.join(ours)}."
            )
    chosen: dict[str, str] = {}
    for name in ours:
        key = given.get(name, DEFAULT_KEYS.get(name, name))
        if key in chosen.values():
            other = next(n for n in chosen if chosen[n] == key)
            raise ConfigError(
                f"{other} and {name} would both be sent as {key!r}. Set "
                f"openpi_keys={name}=... to what the server calls it."
            )
        chosen[name] = key
    return chosen


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


def packed(content: Mapping[str, Any]) -> bytes:
    """msgpack with arrays as openpi packs them."""
    return msgspec.msgpack.encode(content, enc_hook=_pack_array)


def unpacked(message: bytes) -> Any:
    """What `packed` packed, arrays as arrays. Raises ValueError for anything else."""
    try:
        return _with_arrays(msgspec.msgpack.decode(message))
    except (msgspec.DecodeError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{error!s:.200}") from error


def _pack_array(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype.kind in _PLAIN_KINDS:
        return {
            _ARRAY: True,
            b"data": value.tobytes(),
            b"dtype": value.dtype.str,
            b"shape": value.shape,
        }
    raise TypeError(f"a {type(value).__name__} cannot be sent.")


def _with_arrays(tree: Any) -> Any:
    if isinstance(tree, list):
        return [_with_arrays(entry) for entry in tree]
    if not isinstance(tree, dict):
        return tree
    if _ARRAY in tree:
        array = np.frombuffer(tree[b"data"], _dtype(tree[b"dtype"]))
        return array.reshape([int(size) for size in tree[b"shape"]])
    if _SCALAR in tree:
        return _dtype(tree[b"dtype"]).type(tree[b"data"])
    return {name: _with_arrays(value) for name, value in tree.items()}


def _dtype(name: Any) -> np.dtype[Any]:
    dtype = np.dtype(name)
    if dtype.kind not in _PLAIN_KINDS:
        raise ValueError(f"an array of dtype {dtype}")
    return dtype
