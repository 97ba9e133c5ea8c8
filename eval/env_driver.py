"""What an environment server answers: the environment it holds, and the one client that drives it.

Pure but for the environment: messages and time come in as arguments, sockets are in
`env_server.py`. A client that was silent for `SILENCE_S` loses the environment to another that
asks for it; time stands still for an environment that nobody steps.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from loopdit.deploy.messages import Bye, ErrorCode, WireError, error
from loopdit.errors import ConfigError, LoopditError
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
    code_of,
)
from loopdit.eval.environment import Environment, Expert

MakeEnvironment = Callable[[int], Environment]  # from the size of the camera frames, 0 for none
Answer = tuple[EnvMessage, Mapping[str, np.ndarray]]

MAX_REQUEST_BYTES = 1024 * 1024  # an action
SILENCE_S = 10.0

_LOG = logging.getLogger(__name__)
_NOTHING: dict[str, np.ndarray] = {}


class Driver:
    """One environment by its name; `make` makes it when a client opens it."""

    def __init__(self, env: str, make: MakeEnvironment, clock: Callable[[], float]) -> None:
        self._name = env
        self._make = make
        self._clock = clock
        self._env: Environment | None = None
        self._image_size = 0
        self._expert: Expert | None = None
        self._client: bytes | None = None  # the connection that drives
        self._heard_s = 0.0

    def receive(self, peer: bytes, frames: list[bytes]) -> Answer | None:
        """The answer to one message; whatever the environment raises becomes an ERROR."""
        try:
            message, tensors = ENV_WIRE.decode(frames, MAX_REQUEST_BYTES)
        except WireError as fault:
            return error(fault.code, str(fault), fault.seq), _NOTHING
        seq = message.seq
        try:
            return self._answer(peer, message, tensors)
        except WireError as fault:
            return error(fault.code, str(fault), seq), _NOTHING
        except LoopditError as fault:
            return error(code_of(fault), str(fault), seq), _NOTHING
        except Exception as fault:  # any: the suite's own, passed on to whoever asked
            if isinstance(fault, ValueError) and isinstance(message, Step):
                return error(EnvErrorCode.ACTION, str(fault), seq), _NOTHING
            _LOG.exception("the environment failed")
            said = f"{self._name} raised {type(fault).__name__}: {fault}"
            return error(ErrorCode.INTERNAL, said, seq), _NOTHING

    def close(self) -> None:
        """Free the environment."""
        if self._env is not None:
            self._env.close()
            self._env = None

    def _answer(
        self, peer: bytes, message: EnvMessage, tensors: dict[str, np.ndarray]
    ) -> Answer | None:
        if isinstance(message, Open):
            self._take(peer, message)
            return self._opened(message), _NOTHING
        if peer != self._client or self._env is None:
            if isinstance(message, Bye):
                return None
            raise WireError(
                ErrorCode.NO_SESSION,
                "another client has taken this environment since, or it was never opened. "
                "Open it again.",
            )
        self._heard_s = self._clock()
        match message:
            case Start():
                self._env.observing = message.observing
                self._expert = None
                observation, info = self._env.reset(seed=message.seed)
                return self._moment(message.seq, 0.0, False, False, info), observation
            case Step():
                self._env.observing = message.observing
                action = _tensor(tensors, "action").copy()
                observation, reward, terminated, truncated, info = self._env.step(action)
                moment = self._moment(message.seq, reward, terminated, truncated, info)
                return moment, observation
            case Ask():
                value = self._given(self._env, message.about, tensors)
                return Given(seq=message.seq), {"value": value}
            case Bye():
                self._client = None
                return None
            case _:
                raise WireError(ErrorCode.UNKNOWN_KIND, "that is a message of the server's.")

    def _take(self, peer: bytes, message: Open) -> None:
        """Make `peer` the one that drives, unless another one does."""
        if message.protocol != ENV_PROTOCOL_VERSION:
            raise WireError(
                ErrorCode.VERSION,
                f"the client speaks version {message.protocol} of the environments' wire, this "
                f"server {ENV_PROTOCOL_VERSION}. Use the same loopdit on both sides.",
            )
        if message.env not in ("", self._name):
            raise ConfigError(
                f"env={message.env} was asked for, but this server runs {self._name}. "
                f"Start one with env={message.env}, or connect to another."
            )
        silent_s = self._clock() - self._heard_s
        if self._client not in (None, peer) and silent_s < SILENCE_S:
            raise WireError(
                EnvErrorCode.BUSY,
                f"another client is driving {self._name} (heard {silent_s:.1f} s ago). An "
                "environment server has one client at a time: start another for each worker.",
            )
        if self._env is None or self._image_size != message.image_size:
            self.close()
            self._env = self._make(message.image_size)
            self._image_size = message.image_size
        self._expert = None
        self._client, self._heard_s = peer, self._clock()

    def _opened(self, message: Open) -> Opened:
        env = self._env
        assert env is not None
        return Opened(
            seq=message.seq,
            protocol=ENV_PROTOCOL_VERSION,
            env=self._name,
            instruction=env.instruction,
            control_period_s=env.control_period_s,
            max_steps=env.max_steps,
            stages=tuple(env.stages),
            simulator=env.simulator,
            spec=env.policy_spec.to_dict(),
        )

    def _moment(
        self, seq: int, reward: float, terminated: bool, truncated: bool, info: dict[str, Any]
    ) -> Moment:
        plain = {name: _plain(value) for name, value in info.items()}
        return Moment(
            seq=seq,
            reward=float(reward),
            terminated=bool(terminated),
            truncated=bool(truncated),
            info={name: value for name, value in plain.items() if value is not None},
        )

    def _given(self, env: Environment, about: str, tensors: dict[str, np.ndarray]) -> np.ndarray:
        match about:
            case Question.EXPERT:
                self._expert = env.expert()
                return np.zeros(0, np.float32)
            case Question.ACTION:
                if self._expert is None:
                    raise WireError(ErrorCode.MALFORMED, "no expert was asked for this episode.")
                return self._expert.action()
            case Question.IDLE:
                last = tensors.get("last")
                return env.idle(None if last is None else last.copy())
            case Question.STATE:
                return env.state()
            case Question.PICTURE:
                return env.render()
            case _:
                raise WireError(
                    ErrorCode.UNSUPPORTED, f"ASK about {about[:32]!r}; not known to this server."
                )


def _tensor(tensors: dict[str, np.ndarray], name: str) -> np.ndarray:
    if name not in tensors:
        raise WireError(ErrorCode.UNKNOWN, f"the message lacks its tensor {name!r}.")
    return tensors[name]


def _plain(value: Any) -> bool | int | float | str | None:
    """As the header carries it; None for what it does not (arrays, and the like)."""
    if isinstance(value, np.generic):
        value = value.item()
    return value if isinstance(value, (bool, int, float, str)) else None
