"""An environment that runs in another process, driven over wire LDE1 as if it were here.

    env = RemoteEnv("tcp://127.0.0.1:5600", image_size=64)
    observation, info = env.reset(seed=1)

What the environment raises is raised here, with its own words. A server that is gone raises
EnvironmentGone at once, not after a time-out: the connection is watched. Its episode is lost then,
and so is this RemoteEnv. Imports numpy, pyzmq and msgspec only; one belongs to one thread.
"""

import contextlib
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
import numpy as np
import zmq
from zmq.utils.monitor import recv_monitor_message

from loopdit.datasets.spec import PolicySpec
from loopdit.deploy.messages import Bye, Error, WireError
from loopdit.deploy.protocol import MAX_HEADER_BYTES
from loopdit.errors import ServerError
from loopdit.eval.env_messages import (
    ENV_PROTOCOL_VERSION,
    ENV_WIRE,
    Ask,
    EnvErrorCode,
    EnvMessage,
    Given,
    Moment,
    Open,
    Opened,
    Question,
    Start,
    Step,
    raised_for,
)
from loopdit.eval.environment import EnvironmentGone

Answer = TypeVar("Answer", Opened, Moment, Given)

_MAX_REPLY_BYTES = 64 * 1024 * 1024
_CONNECT_S = 5.0
_START_S = 60.0  # a Python that starts, on a busy machine
_LOOK_MS = 50
# Suites import for a minute and compile for another; a server that died is noticed without this.
_ANSWER_S = 300.0
_LAST_WORDS_MS = 100
_FAREWELL_S = 1.0  # how long one client's farewell may be behind the next one's greeting


class RemoteEnv:
    """See `eval.environment.Environment`.

    `env` refuses a server of another one. `ended` says how the server's process ended (None while
    it runs), where that is ours to know; `on_close` is called when this is closed.
    Raises ServerError when nobody answers at `endpoint`, and what making the environment raises.
    """

    def __init__(
        self,
        endpoint: str,
        image_size: int = 64,
        env: str = "",
        ended: Callable[[], str | None] | None = None,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self.observing = True
        self._name = env or endpoint
        self._endpoint = endpoint
        self._ended = ended
        self._on_close = on_close
        self._seq = 0
        self._lost = ""
        self._socket = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, _LAST_WORDS_MS)
        self._socket.setsockopt(zmq.IMMEDIATE, 1)
        self._socket.setsockopt(zmq.MAXMSGSIZE, _MAX_REPLY_BYTES + MAX_HEADER_BYTES)
        self._socket.setsockopt(zmq.IPV6, int("[" in endpoint))
        events = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
        # A name of its own: the default one is made of a file descriptor, which is used again.
        watch = f"inproc://env-{secrets.token_hex(8)}"
        self._monitor = self._socket.get_monitor_socket(events, watch)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)
        try:
            self._connect()
            client = secrets.randbits(63)
            request = Open(0, ENV_PROTOCOL_VERSION, client, image_size, env)
            opened = self._opened(request)
            self.policy_spec = PolicySpec.from_dict(opened.spec)
        except BaseException:
            self.close()
            raise
        self._name = opened.env
        self.instruction = opened.instruction
        self.control_period_s = opened.control_period_s
        self.max_steps = opened.max_steps
        self.stages = opened.stages
        self.simulator = opened.simulator

    def reset(self, *, seed: int | None = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start the episode that `seed` names."""
        moment, observation = self._exchange(Start(0, seed, self.observing), Moment)
        return observation, dict(moment.info)

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """One control period. Raises ValueError for what is no action of this environment."""
        command = np.asarray(action, np.float32)
        moment, observation = self._exchange(Step(0, self.observing), Moment, {"action": command})
        info = dict(moment.info)
        return observation, moment.reward, moment.terminated, moment.truncated, info

    def expert(self) -> "RemoteExpert":
        """A fresh expert for the episode that just started; ConfigError where there is none."""
        self._ask(Question.EXPERT)
        return RemoteExpert(self._ask)

    def idle(self, last: np.ndarray | None) -> np.ndarray:
        """The action (A,) that asks for no motion and keeps the gripper as `last` had it."""
        known = {} if last is None else {"last": np.asarray(last, np.float32)}
        return self._ask(Question.IDLE, known)

    def state(self) -> np.ndarray:
        """All that decides what happens next, as one vector."""
        return self._ask(Question.STATE)

    def render(self) -> np.ndarray:
        """A picture (H, W, 3) uint8 for people."""
        return self._ask(Question.PICTURE)

    def close(self) -> None:
        """Leave, and end the server where it is ours."""
        if not self._socket.closed:
            if self._seq and not self._lost:
                self._seq += 1
                with contextlib.suppress(zmq.Again):  # nobody is connected to hear it
                    self._socket.send_multipart(ENV_WIRE.encode(Bye(seq=self._seq)), zmq.NOBLOCK)
            self._socket.disable_monitor()
            self._monitor.close(linger=0)
            self._socket.close(linger=_LAST_WORDS_MS)
        if self._on_close is not None:
            self._on_close()
            self._on_close = None

    def _ask(self, about: str, tensors: Mapping[str, np.ndarray] | None = None) -> np.ndarray:
        _, answered = self._exchange(Ask(0, about), Given, tensors)
        return answered["value"]

    def _opened(self, request: Open) -> Opened:
        """Asked again for a moment where another client drives, which may just have left: its
        farewell comes over a connection of its own."""
        until_s = time.monotonic() + _FAREWELL_S
        while True:
            try:
                return self._exchange(request, Opened)[0]
            except WireError as error:
                if error.code != EnvErrorCode.BUSY or time.monotonic() > until_s:
                    raise
                time.sleep(_LOOK_MS / 1e3)

    def _connect(self) -> None:
        try:
            self._socket.connect(self._endpoint)
        except zmq.ZMQError as error:
            raise ServerError(
                f"{self._endpoint!r} is not an address to connect to ({error.strerror}). "
                "Give one like tcp://127.0.0.1:5600."
            ) from None
        deadline_s = time.monotonic() + (_START_S if self._ended else _CONNECT_S)
        while not (self._monitor.poll(_LOOK_MS) and self._event() == zmq.EVENT_HANDSHAKE_SUCCEEDED):
            self._check_process("while it started")
            if time.monotonic() > deadline_s:
                raise ServerError(
                    f"no environment server answers at {self._endpoint}. Start one there with: "
                    "python -m loopdit.eval.env_server env=NAME endpoint=tcp://127.0.0.1:PORT"
                )

    def _exchange(
        self,
        message: Open | Start | Step | Ask,
        answer: type[Answer],
        tensors: Mapping[str, np.ndarray] | None = None,
    ) -> tuple[Answer, dict[str, np.ndarray]]:
        if self._socket.closed:
            raise RuntimeError("this RemoteEnv is closed.")
        if self._lost:
            raise EnvironmentGone(self._lost)
        self._seq += 1
        request = msgspec.structs.replace(message, seq=self._seq)
        asked = f"while it was asked for {type(message).__name__.lower()}"
        try:
            self._socket.send_multipart(ENV_WIRE.encode(request, tensors), zmq.NOBLOCK)
        except zmq.Again:  # no connection
            raise self._gone(asked) from None
        deadline_s = time.monotonic() + _ANSWER_S
        while True:
            ready = dict(self._poller.poll(max(0, round((deadline_s - time.monotonic()) * 1e3))))
            if self._socket in ready:
                reply, arrived = self._receive()
                if isinstance(reply, answer) and reply.seq == self._seq:
                    # Memory of their own, writable, as an environment here would give them.
                    return reply, {name: array.copy() for name, array in arrived.items()}
                if isinstance(reply, Error) and reply.seq in (self._seq, 0):
                    raise self._refusal(reply)
            elif self._monitor in ready:
                if self._event() == zmq.EVENT_DISCONNECTED:
                    raise self._gone(asked)
            else:
                raise self._gone(f"or hangs: no answer within {_ANSWER_S:g} s")

    def _receive(self) -> tuple[EnvMessage, dict[str, np.ndarray]]:
        try:
            return ENV_WIRE.decode(self._socket.recv_multipart(), _MAX_REPLY_BYTES)
        except WireError as error:
            raise WireError(
                error.code, f"{self._endpoint} is no environment server of this version: {error}"
            ) from None

    def _refusal(self, reply: Error) -> Exception:
        raised = raised_for(reply.code)
        if raised is not None:
            return raised(reply.message)
        return WireError(reply.code, f"the server of {self._name}: {reply.message}", reply.seq)

    def _event(self) -> int:
        return int(recv_monitor_message(self._monitor)["event"])

    def _check_process(self, when: str) -> None:
        if self._ended is not None and self._ended() is not None:
            raise self._gone(when)

    def _gone(self, when: str) -> EnvironmentGone:
        how = self._how_it_ended()
        self._lost = (
            f"the process of {self._name} is gone, {when}; its episode is lost. {how}"
            "Make the environment again."
        )
        return EnvironmentGone(self._lost)

    def _how_it_ended(self) -> str:
        if self._ended is None:
            return ""
        # Its connection closes a moment before the process is over.
        for _ in range(20):
            how = self._ended()
            if how is not None:
                return f"It {how} "
            time.sleep(_LOOK_MS / 1e3)
        return ""


class RemoteExpert:
    """The scripted expert of an environment in another process."""

    def __init__(self, ask: Callable[[str], np.ndarray]) -> None:
        self._ask = ask

    def action(self) -> np.ndarray:
        """The clean action (A,) float32 for the environment's present state."""
        return self._ask(Question.ACTION)
