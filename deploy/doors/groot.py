"""A door for GR00T's clients: its ZeroMQ protocol, in both of the ways in which they pack arrays.

A REQ client sends `{"endpoint": name, "data": {...}}` and gets one answer, `{"error": text}` where
there is none. Endpoints: ping, get_modality_config, get_action, reset. There is no `kill`: whoever
can reach a policy should not be able to stop it. N1.5 sends flat observations (`video.front`) and
expects the action alone; later ones send `{"video": {...}, "state": {...}, "language": {...}}` with
batch and time axes and expect [action, info]. An action is `{"action": (1, H, A)}`, for N1.5
without the batch axis.

Each client is a session. The answers are made in a few threads, so that a ping is answered while
the policy computes.
"""

import contextlib
import logging
import queue
import threading
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import zmq

from loopdit.datasets.spec import IMAGE_PREFIX, PROPRIO, PolicySpec
from loopdit.deploy.doors.door_session import DoorSession, most_bytes
from loopdit.deploy.doors.groot_codec import packed, unpacked
from loopdit.deploy.doors.inside import Inside
from loopdit.deploy.doors.key_names import INSTRUCTION, keys_for
from loopdit.errors import LoopditError, ServerError

MAX_CLIENTS = 64
_THREADS = 8
_LOG = logging.getLogger(__name__)
_VIDEO, _STATE, _LANGUAGE, _ACTION = "video.", "state.", "annotation.", "action"
_TASK = "annotation.human.task_description"
_WAKE = b""


class GrootDoor:
    """Listens at `host`:`port` (0: any that is free; see `port`) from here on; `close` ends it.

    `keys` as in `openpi.OpenPiDoor`; by default images.front is video.front, proprio
    state.proprio. Raises ServerError, ConfigError.
    """

    def __init__(
        self,
        inside: Inside,
        host: str,
        port: int,
        keys: Mapping[str, str],
    ) -> None:
        self._inside = inside
        recorded = inside.spec.recorded
        self._keys = keys_for(recorded, keys, default_keys(recorded), "groot_keys")
        self._sessions: OrderedDict[bytes, DoorSession] = OrderedDict()
        self._answers: queue.SimpleQueue[list[bytes]] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="groot-door")
        self._context = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.setsockopt(zmq.LINGER, 0)
        self._router.setsockopt(zmq.MAXMSGSIZE, most_bytes(recorded))
        address = f"tcp://[{host}]" if ":" in host else f"tcp://{host}"
        try:
            self._router.setsockopt(zmq.IPV6, int(":" in host))
            self._router.bind(f"{address}:{port or '*'}")
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise ServerError(
                f"cannot listen for GR00T's clients at {host}:{port}: {error.strerror}. Choose "
                "another groot_port=."
            ) from error
        endpoint = self._router.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")
        self.port = int(endpoint.rpartition(":")[2])
        # The router belongs to one thread; the others wake it through a pair of sockets.
        self._woken, self._waker = (self._context.socket(zmq.PAIR) for _ in range(2))
        self._woken.bind("inproc://groot-door")
        self._waker.connect("inproc://groot-door")
        self._lock = threading.Lock()  # of the waking socket and the sessions
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="groot-door", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answer nobody any more."""
        self._closing = True
        self._wake()
        self._thread.join()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._context.destroy(linger=0)
        for session in self._sessions.values():
            session.close()

    def _wake(self) -> None:
        with self._lock, contextlib.suppress(zmq.ZMQError):
            self._waker.send(_WAKE, zmq.NOBLOCK)

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._router, zmq.POLLIN)
        poller.register(self._woken, zmq.POLLIN)
        while not self._closing:
            ready = dict(poller.poll())
            if self._woken in ready:
                self._woken.recv()
            while not self._answers.empty():
                with contextlib.suppress(zmq.ZMQError):  # a client that is gone hears nothing
                    self._router.send_multipart(self._answers.get(), zmq.NOBLOCK)
            if self._router in ready:
                self._take(self._router.recv_multipart())

    def _take(self, frames: list[bytes]) -> None:
        """Answer at once what needs no policy, and give the rest to a thread."""
        peer, *envelope, message = frames
        try:
            request, generation = unpacked(message)
            if not isinstance(request, dict):
                raise ValueError("a request is one msgpack map")
            endpoint = request.get("endpoint", "get_action")
            data = request.get("data") or {}
            if not isinstance(data, dict):
                raise ValueError("data is no map")
        except ValueError as fault:
            self._say(peer, envelope, {"error": f"not a GR00T request: {fault!s:.200}"}, "npy")
            return
        if endpoint == "ping":
            how = "Server is warming up" if self._inside.warming else "Server is running"
            answer: Any = {"status": "ok", "message": how}
        elif endpoint == "get_modality_config":
            answer = modality_config(self._inside.spec, self._keys, self._inside.horizon)
        elif endpoint in ("get_action", "reset"):
            self._threads.submit(self._ask, peer, envelope, endpoint, data, generation)
            return
        else:
            answer = {
                "error": f"Unknown endpoint: {endpoint!s:.40}. There are: ping, "
                "get_modality_config, get_action, reset."
            }
        self._say(peer, envelope, answer, generation)

    def _ask(
        self, peer: bytes, envelope: list[bytes], endpoint: str, data: Any, generation: str
    ) -> None:
        try:
            session = self._session(peer)
            answer = (
                _reset(session, data) if endpoint == "reset" else _action(session, self._keys, data)
            )
        except (LoopditError, ValueError) as fault:
            answer = {"error": str(fault)}
        except Exception:  # any: the client is answered, the others served
            _LOG.exception("a GR00T client's request failed")
            answer = {"error": "the server failed; its log says how."}
        self._answers.put([peer, *envelope, packed(answer, generation)])
        self._wake()

    def _say(self, peer: bytes, envelope: list[bytes], answer: Any, generation: str) -> None:
        with contextlib.suppress(zmq.ZMQError):
            self._router.send_multipart([peer, *envelope, packed(answer, generation)], zmq.NOBLOCK)

    def _session(self, peer: bytes) -> DoorSession:
        with self._lock:
            session = self._sessions.get(peer)
            if session is not None:
                self._sessions.move_to_end(peer)
                return session
        opened = self._inside.session(self._keys)
        with self._lock:
            self._sessions[peer] = opened
            # ZeroMQ does not say when a client leaves: the one that was silent longest gives way.
            given_up = self._sessions.popitem(last=False)[1] if self._full else None
        if given_up is not None:
            given_up.close()
        return opened

    @property
    def _full(self) -> bool:
        return len(self._sessions) > MAX_CLIENTS


def default_keys(spec: PolicySpec) -> dict[str, str]:
    """GR00T's names for what `spec` observes."""
    names = {INSTRUCTION: _TASK, PROPRIO: f"{_STATE}{PROPRIO}"}
    for camera in spec.cameras:
        names[camera.name] = _VIDEO + camera.name.removeprefix(IMAGE_PREFIX)
    return names


def modality_config(spec: PolicySpec, keys: Mapping[str, str], horizon: int) -> dict[str, Any]:
    """By modality, the keys and the steps, relative to the present one, of each."""
    names = [keys[tensor.name] for tensor in spec.recorded.observations]
    modalities = {
        "video": ([n.removeprefix(_VIDEO) for n in names if n.startswith(_VIDEO)], [0]),
        "state": ([n.removeprefix(_STATE) for n in names if n.startswith(_STATE)], [0]),
        "language": ([keys[INSTRUCTION]], [0]),
        "action": ([_ACTION], list(range(horizon))),
    }
    return {
        name: {
            "__ModalityConfig_class__": True,
            "as_json": {"modality_keys": entries, "delta_indices": steps},
        }
        for name, (entries, steps) in modalities.items()
    }


def _action(session: DoorSession, keys: Mapping[str, str], data: Mapping[str, Any]) -> Any:
    """[action, info] for a nested observation, the action alone for a flat one."""
    nested = data.get("observation", data)
    if not isinstance(nested, dict):
        raise ValueError("observation is no map.")
    is_flat = not any(isinstance(value, dict) for value in nested.values())
    flat = nested if is_flat else _flattened(nested)
    axes = 1 if is_flat else 2  # (time,) or (batch, time)
    task = keys[INSTRUCTION]
    given = {
        name: _text(value) if name == task else _without_axes(name, value, axes)
        for name, value in flat.items()
        if value is not None
    }
    reply = session.chunk(given)
    if is_flat:
        return {_ACTION: reply.actions}
    timing = {name: int(us) for name, us in reply.timing_us.items()}
    info = {"loops": reply.loops, "steps": reply.steps, "timing_us": timing}
    return [{_ACTION: reply.actions[None]}, info]


def _reset(session: DoorSession, data: Mapping[str, Any]) -> dict[str, Any]:
    options = data.get("options")
    seed = options.get("seed", 0) if isinstance(options, dict) else 0
    session.reset(seed)
    return {}


def _flattened(nested: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for modality, entries in nested.items():
        if not isinstance(entries, dict):
            raise ValueError(f"{modality!s:.40} is no map of its keys.")
        for name, value in entries.items():
            flat[str(name) if modality == "language" else f"{modality}.{name}"] = value
    return flat


def _without_axes(name: str, value: Any, axes: int) -> np.ndarray:
    """Without its batch and time axes, which have to be 1: one robot, one step at a time."""
    array = np.asarray(value)
    if array.shape[:axes] != (1,) * axes:
        raise ValueError(
            f"{name} is {array.shape}; its first {axes} axes have to be 1: one observation at a "
            "time, of one step (a history is kept here)."
        )
    return array.reshape(array.shape[axes:])


def _text(value: Any) -> str:
    """The instruction, however deep it lies in lists."""
    while isinstance(value, (list, tuple)) and value:
        value = value[0]
    return str(value.item() if isinstance(value, np.ndarray) and value.size == 1 else value)
