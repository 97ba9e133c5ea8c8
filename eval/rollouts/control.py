"""Whether a policy held the control rate: when each tick got its action, and at what rate.

Every control period one action is due. The first action of a chunk waits for the policy, the
others are at hand. A tick is missed when its action came later than one control period; a robot
that waits for it then ticks late, which is what `rate_hz` shows. One that does not wait ticks on
time and stays put instead.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class ControlRecord:
    """The control ticks of one or several rollouts; `elapsed_s` is what they took on a robot."""

    period_s: float
    ticks: int
    missed: int
    elapsed_s: float

    @property
    def rate_hz(self) -> float:
        """Ticks per second that were reached; 1 / period_s when none was missed."""
        return self.ticks / self.elapsed_s if self.ticks else 0.0

    @property
    def on_time(self) -> float:
        """Share of ticks, 0 to 1, whose action was there within the control period."""
        return 1 - self.missed / self.ticks if self.ticks else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "period_s": self.period_s,
            "ticks": self.ticks,
            "missed": self.missed,
            "on_time": self.on_time,
            "rate_hz": self.rate_hz,
        }


def control_record(waits_s: Sequence[float], period_s: float) -> ControlRecord:
    """`waits_s` (ticks,): how long each tick waited for its action, 0 for one already at hand."""
    return ControlRecord(
        period_s=period_s,
        ticks=len(waits_s),
        missed=sum(wait > period_s for wait in waits_s),
        elapsed_s=sum(max(wait, period_s) for wait in waits_s),
    )


def never_waiting_record(ticks: int, missed: int, period_s: float) -> ControlRecord:
    """Of a robot that ticks on time always, and stays put on the `missed` ticks without action."""
    return ControlRecord(period_s=period_s, ticks=ticks, missed=missed, elapsed_s=ticks * period_s)


def combined(records: Iterable[ControlRecord], period_s: float) -> ControlRecord:
    """The ticks of all `records`, which share one control period, as one record."""
    every = list(records)
    return ControlRecord(
        period_s=period_s,
        ticks=sum(record.ticks for record in every),
        missed=sum(record.missed for record in every),
        elapsed_s=sum(record.elapsed_s for record in every),
    )


def latency_percentiles_ms(latencies_s: Sequence[float]) -> dict[str, float]:
    """{"p50", "p99"} in milliseconds, interpolated linearly. Raises ValueError when empty."""
    if not latencies_s:
        raise ValueError("there is no latency to summarise.")
    p50, p99 = np.percentile(np.asarray(latencies_s) * 1e3, [50, 99])
    return {"p50": float(p50), "p99": float(p99)}
