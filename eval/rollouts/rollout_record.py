"""A rollout as one line of the journal, and back to the bit.

`trace` has one CRC-32 for the environment's state after the reset and after each step: where two
rollouts part, the first of these that differs says at which step.
"""

import base64
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from loopdit.eval.rollouts.condition import Condition
from loopdit.eval.rollouts.rollout import Rollout
from loopdit.eval.runs.plan import Job

Record = dict[str, Any]


@dataclass(frozen=True)
class Episode:
    """A rollout that was driven for `job`.

    trace: (T + 1,) uint32. error: what it raised, "" for nothing. restarts: workers that died of it
    before.
    """

    job: Job
    rollout: Rollout
    trace: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint32))
    error: str = ""
    restarts: int = 0


def to_record(episode: Episode, run: str) -> Record:
    """Plain JSON types. `run` is the digest of the plan it belongs to."""
    actions = episode.rollout.actions
    return {
        "kind": "rollout",
        "run": run,
        "subject": episode.job.subject,
        "condition": episode.job.condition.to_dict(),
        **episode.rollout.to_dict(),
        "error": episode.error,
        "restarts": episode.restarts,
        "trace": _packed(episode.trace.astype("<u4")),
        "actions": {"shape": list(actions.shape), "float32": _packed(actions.astype("<f4"))},
    }


def from_record(record: Record) -> Episode:
    """Read what `to_record` wrote. Raises KeyError or TypeError for anything else."""
    ours = ("kind", "run", "subject", "condition", "error", "restarts", "trace", "actions")
    packed = record["actions"]
    actions = np.frombuffer(base64.b64decode(packed["float32"]), "<f4").reshape(packed["shape"])
    measured = {name: value for name, value in record.items() if name not in ours}
    return Episode(
        Job(record["subject"], Condition.from_dict(record["condition"]), record["seed"]),
        Rollout.from_dict(measured, actions),
        np.frombuffer(base64.b64decode(record["trace"]), "<u4"),
        record["error"],
        record["restarts"],
    )


def state_crc(state: np.ndarray) -> int:
    """One entry of a trace."""
    return zlib.crc32(state.tobytes())


def _packed(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()
