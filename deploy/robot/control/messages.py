"""The messages of control mode: wire LDA1, framed as the policy's is (`deploy/protocol.py`).

| who publishes | message | tensors |
|---|---|---|
| the server | ACTION, once each control period | `action` (A,) float32 |
| the server | STATUS, once a second | |
| the robot's side | OBSERVED | the observation's |

Published (PUB to SUB), so nothing answers. `seq` counts each publisher's messages of one kind from
1 without holes: what is missing was lost on the way. docs/control.md says the same for readers who
write the robot's side in another language.
"""

from typing import TypeAlias

import msgspec

from loopdit.deploy.messages import Count, Numbered, TensorHeader
from loopdit.deploy.protocol import Wire

# Where an action comes from, besides "watchdog" and "emergency_stop".
POLICY, HOLD = "policy", "hold"


class Action(Numbered, frozen=True, tag="ACTION"):
    """What the robot is to do in the control period that begins now.

    due_ns, sent_ns: when it was to be sent and when it was, on the server's monotonic clock.
    source: POLICY; HOLD where the policy has none; or what has stopped it. changed_by: the guards
    that changed it. episode: the OBSERVED's that it belongs to.
    """

    due_ns: Count
    sent_ns: Count
    source: str
    changed_by: tuple[str, ...] = ()
    episode: Count = 0
    tensors: tuple[TensorHeader, ...] = ()


class Observed(Numbered, frozen=True, tag="OBSERVED"):
    """What the robot observes.

    applied: the seq of the latest ACTION that had been carried out or begun when it was observed,
    0 for none: it says which control step the observation belongs to, without comparing clocks.
    Where it is not known, `stamped` is false, and the observation counts as of the moment it came.
    episode: another number, and all that was planned is forgotten.
    """

    applied: Count = 0
    stamped: bool = True
    episode: Count = 0
    instruction: str = ""
    tensors: tuple[TensorHeader, ...] = ()


class Percentiles(msgspec.Struct, array_like=True, frozen=True):
    """Microseconds."""

    p50: Count = 0
    p99: Count = 0
    max: Count = 0


class Status(Numbered, frozen=True, tag="STATUS"):
    """How control is held. Percentiles are of the last second; counts, since the start.

    ticks: control periods. missed: those in which nothing could be sent, because the one before
    was not done. late_us: from when an action was due until it was sent. chunk_us: from when a
    chunk was asked for until it was there. stopped_by: "" while it moves. acted: how often each
    guard changed an action, the watchdog and the emergency stop took effect.
    """

    ticks: Count
    missed: Count
    rate_hz: float
    late_us: Percentiles
    chunk_us: Percentiles
    loops: Count
    steps: Count
    chunks: Count
    stopped_by: str
    acted: dict[str, int]


ControlMessage: TypeAlias = Action | Observed | Status

CONTROL_WIRE: Wire[ControlMessage] = Wire(b"LDA1", ControlMessage)
