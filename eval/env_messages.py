"""The messages that drive an environment in another process: wire LDE1, framed as the policy's is.

The client asks, the server answers each message once, with the same seq, by the message named
below or by an ERROR. One environment, one client at a time, one question at a time.

| the client | the server | tensors |
|---|---|---|
| OPEN | OPENED | |
| START (an episode), STEP | MOMENT | STEP: `action`; MOMENT: the observation's |
| ASK (expert, action, idle, state, picture) | GIVEN | ASK idle: `last`; GIVEN: `value` |
| BYE | | |
"""

from enum import StrEnum
from typing import Any, TypeAlias

from loopdit.deploy.messages import Bye, Count, Error, ErrorCode, Numbered, TensorHeader
from loopdit.deploy.protocol import Wire
from loopdit.errors import ConfigError, LoopditError, RenderingError

ENV_PROTOCOL_VERSION = 1


class EnvErrorCode(StrEnum):
    """Why an environment did not do what was asked; besides these, those of `ErrorCode`."""

    CONFIG = "CONFIG"  # no such task, no scripted expert, assets that are missing
    RENDERING = "RENDERING"  # no OpenGL there
    ACTION = "ACTION"  # not an action of this environment
    BUSY = "BUSY"  # another client is driving it


# What the client raises for a code, so that it does not matter where an environment runs.
_RAISED: dict[str, type[Exception]] = {
    EnvErrorCode.CONFIG: ConfigError,
    EnvErrorCode.RENDERING: RenderingError,
    EnvErrorCode.ACTION: ValueError,
}


class Open(Numbered, frozen=True, tag="OPEN"):
    """Takes the environment, which is made now. `image_size` 0: no camera frames."""

    protocol: Count
    client: Count  # random, 63 bits
    image_size: Count
    env: str = ""  # the one that is meant; empty: whichever is served


class Opened(Numbered, frozen=True, tag="OPENED"):
    """The environment's own attributes, see `eval.environment`."""

    protocol: Count
    env: str
    instruction: str
    control_period_s: float
    max_steps: Count
    stages: tuple[str, ...]
    simulator: str
    spec: dict[str, Any]


class Start(Numbered, frozen=True, tag="START"):
    """Resets to the episode that `seed` names; none: to any."""

    seed: Count | None
    observing: bool = True


class Step(Numbered, frozen=True, tag="STEP"):
    """One control period under the tensor `action` (A,)."""

    observing: bool = True
    tensors: tuple[TensorHeader, ...] = ()


class Moment(Numbered, frozen=True, tag="MOMENT"):
    """Where the episode is now; the tensors are the observation. `info` has plain values only."""

    reward: float
    terminated: bool
    truncated: bool
    info: dict[str, bool | int | float | str]
    tensors: tuple[TensorHeader, ...] = ()


class Question(StrEnum):
    """What ASK may be about."""

    EXPERT = "expert"  # make a fresh one for this episode; `value` is empty
    ACTION = "action"  # the one that this expert would take now
    IDLE = "idle"  # no motion, the gripper as in the tensor `last` if there is one
    STATE = "state"
    PICTURE = "picture"


class Ask(Numbered, frozen=True, tag="ASK"):
    """A question about the present moment; time stands still."""

    about: str
    tensors: tuple[TensorHeader, ...] = ()


class Given(Numbered, frozen=True, tag="GIVEN"):
    """The answer to an ASK: one tensor `value`."""

    tensors: tuple[TensorHeader, ...] = ()


EnvMessage: TypeAlias = Open | Opened | Start | Step | Moment | Ask | Given | Error | Bye

ENV_WIRE: Wire[EnvMessage] = Wire(b"LDE1", EnvMessage)


def code_of(error: LoopditError) -> str:
    """The code under which `error` travels."""
    for code, kind in _RAISED.items():
        if isinstance(error, kind):
            return code
    return ErrorCode.INTERNAL


def raised_for(code: str) -> type[Exception] | None:
    """The exception that an error of this code becomes on the client's side, if it has its own."""
    return _RAISED.get(code)
