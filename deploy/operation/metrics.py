"""A server's numbers in the text that Prometheus reads.

They are documented in docs/operation.md. Nothing is counted here: how a server is at this moment
comes from a PONG, what it did from `counts` and `recorder`, and in control mode from its STATUS.
"""

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from loopdit.deploy.messages import Pong
from loopdit.deploy.operation.counts import BOUNDS_US, Counts
from loopdit.deploy.operation.recording import Recorded
from loopdit.deploy.robot.control.messages import Status

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BOUNDS = [*(f"{bound / 1e6:g}" for bound in BOUNDS_US), "+Inf"]


def exposition(metrics: Iterable[Metric]) -> bytes:
    """The text."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Made(metrics))
    return generate_latest(registry)


class _Made(Collector):
    """Metrics that were made before."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def present(pong: Pong | None, stopped: bool) -> list[Metric]:
    """How it is; pong is None while it does not answer."""
    made: list[Metric] = [
        _gauge("ready", "1: the policy is warm and the server answers.", pong is not None),
        _gauge("emergency_stop", "1: it is pressed.", stopped),
    ]
    if pong is not None:
        made += [
            _gauge("sessions", "Open sessions.", pong.sessions),
            _gauge("queued", "Observations that wait for compute.", pong.queued),
            _gauge("busy_seconds", "Since when it computes; 0: idle.", pong.busy_us / 1e6),
            _gauge("uptime_seconds", "Since the server was made.", pong.uptime_us / 1e6),
        ]
        policy = GaugeMetricFamily("loopdit_policy_info", "What is served.", labels=["model_id"])
        policy.add_metric([pong.model_id], 1)
        made.append(policy)
    return made


def answered(counts: Counts, limited: int) -> list[Metric]:
    """What was answered; `limited` messages were over a client's rate."""
    chunks = CounterMetricFamily("loopdit_chunks", "Chunks sent.", labels=["loops", "steps"])
    for (loops, steps), number in sorted(dict(counts.chunks).items()):
        chunks.add_metric([str(loops), str(steps)], number)
    errors = _labelled("errors", "Requests answered by an error.", "code", dict(counts.errors))
    late = {"answered": counts.late, "refused": counts.deadline_misses - counts.late}
    missed = _labelled("deadline_misses", "Chunks that came late or not at all.", "outcome", late)
    seconds = HistogramMetricFamily(
        "loopdit_request_seconds", "Where a chunk's time in the server went.", labels=["part"]
    )
    for part, histogram in counts.histograms.items():
        buckets = list(zip(_BOUNDS, map(float, histogram.cumulative), strict=True))
        seconds.add_metric([part], buckets, histogram.sum_us / 1e6)
    over = _counter("rate_limited", "Messages refused for a client's rate.", limited)
    return [chunks, errors, missed, seconds, over]


def recording(recorded: Recorded) -> list[Metric]:
    """What was recorded."""
    return [
        _gauge("recording", "0: it has stopped, see the log.", recorded.going_on),
        _counter("recorded_steps", "Steps written to the store.", recorded.steps),
        _counter("recorded_episodes", "Episodes written to the store.", recorded.episodes),
        _counter("record_dropped", "Steps that were not recorded.", recorded.dropped),
    ]


def controlled(status: Status) -> list[Metric]:
    """How control is held; percentiles are of the last second."""
    made = [
        _counter("control_ticks", "Control periods.", status.ticks),
        _counter("control_missed", "Control periods in which nothing was sent.", status.missed),
        _gauge("control_rate_hz", "Actions a second.", status.rate_hz),
        _counter("control_chunks", "Chunks computed.", status.chunks),
        _gauge("control_loops", "K of the latest chunk.", status.loops),
        _gauge("control_stopped", "1: nothing of the policy is sent.", bool(status.stopped_by)),
        _labelled(
            "safety_interventions", "Actions changed or stopped, by what.", "guard", status.acted
        ),
    ]
    for name, said, found in (
        ("control_late_seconds", "From due until sent.", status.late_us),
        ("control_chunk_seconds", "From asked until there.", status.chunk_us),
    ):
        metric = GaugeMetricFamily(f"loopdit_{name}", said, labels=["quantile"])
        for quantile, value_us in (("0.5", found.p50), ("0.99", found.p99), ("1", found.max)):
            metric.add_metric([quantile], value_us / 1e6)
        made.append(metric)
    return made


def _gauge(name: str, said: str, value: float) -> Metric:
    return GaugeMetricFamily(f"loopdit_{name}", said, value=float(value))


def _counter(name: str, said: str, value: float) -> Metric:
    return CounterMetricFamily(f"loopdit_{name}", said, value=value)


def _labelled(name: str, said: str, label: str, values: Mapping[str, int]) -> Metric:
    metric = CounterMetricFamily(f"loopdit_{name}", said, labels=[label])
    for key, value in sorted(values.items()):
        metric.add_metric([str(key)], value)
    return metric
