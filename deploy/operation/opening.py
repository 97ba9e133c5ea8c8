"""Puts what watches a server beside it: the recorder, and the HTTP port with its counters."""

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from loopdit.deploy.clock import MonotonicClock
from loopdit.deploy.operation.control_recorder import ControlRecorder
from loopdit.deploy.operation.recorder import Recorder
from loopdit.deploy.operation.recording import Recorded
from loopdit.deploy.robot.control.config import control_parts
from loopdit.deploy.robot.control.observer import ControlObserver
from loopdit.deploy.robot.control.sockets import ControlEndpoints
from loopdit.deploy.serving.served_policy import ServedPolicy
from loopdit.deploy.serving.server import PolicyServer
from loopdit.deploy.wire.dealer_link import DealerLink
from loopdit.deploy.wire.link import Link
from loopdit.errors import ConfigError

if TYPE_CHECKING:
    from loopdit.deploy.operation.watch import Watch

MIB = 2**20


@contextmanager
def watched(
    server: PolicyServer,
    host: str,
    say: Callable[[str], None],
    *,
    http_port: int = 0,
    record: str = "",
    record_mb: int = 0,
) -> Generator[None]:
    """Within the block, begun before `server` has started: what was asked for, a line said about
    each. It stops the server at the end, and then completes the recording.

    `host` is the loopback address unless the user said that the server is open to the network.
    Raises ConfigError, ServerError, StoreError, SpecMismatch.
    """
    with ExitStack() as parts:
        parts.callback(server.stop)  # also where something below cannot be had
        recorder: Recorder | None = None
        if record:
            offer = server.offer
            recorder = Recorder(Path(record), offer.spec, offer.horizon, record_mb * MIB)
            parts.callback(_complete, server, recorder, record, say)
            server.observe(recorder)
            say(f"records   {record}")
        if http_port:
            require_packages(http_port)
            from loopdit.deploy.operation.counts import Counts
            from loopdit.deploy.operation.live_view import LiveView
            from loopdit.deploy.operation.watch import ReplyWatch

            clock = MonotonicClock()
            counts, live = Counts(clock), LiveView(server.offer.spec, clock)
            server.observe(counts)
            server.observe(live)
            watch = ReplyWatch(server, counts, live, recorder)
            parts.enter_context(_console(server.connect(), watch, host, http_port, say))
        yield


@contextmanager
def watched_control(
    policy: ServedPolicy,
    rate_hz: float,
    endpoints: ControlEndpoints,
    host: str,
    say: Callable[[str], None],
    *,
    http_port: int = 0,
    record: str = "",
    record_mb: int = 0,
) -> Generator[Sequence[ControlObserver]]:
    """The same for control mode, whose loop takes commands and publishes actions at `endpoints`;
    yields who is to be told what it sees and does. Raises as `watched`."""
    told: list[ControlObserver] = []
    with ExitStack() as parts:
        recorder: ControlRecorder | None = None
        if record:
            steps = control_parts(rate_hz, policy.spec.control_period_s)
            recorder = ControlRecorder(
                Path(record), policy.spec, policy.model_id, steps, record_mb * MIB
            )
            parts.callback(_told_at_the_end, recorder, record, say)
            told.append(recorder)
            say(f"records   {record}")
        if http_port:
            require_packages(http_port)
            from loopdit.deploy.operation.control_watch import ControlWatch

            watch = ControlWatch(endpoints, policy.spec, rate_hz, recorder)
            parts.enter_context(closing(watch))
            told.append(watch)
            link = DealerLink(endpoints.commands, *endpoints.keys)
            parts.enter_context(_console(link, watch, host, http_port, say))
        yield told


def require_packages(http_port: int) -> None:
    """Raise ConfigError where a package is missing that only the HTTP port needs."""
    for package in ("jinja2", "prometheus_client"):
        if find_spec(package) is None:
            raise ConfigError(
                f"http_port={http_port} needs {package}: pip install 'loopdit[serve]'"
            )


@contextmanager
def _console(
    link: Link, watch: "Watch", host: str, port: int, say: Callable[[str], None]
) -> Generator[None]:
    from loopdit.deploy.operation.console import Console
    from loopdit.deploy.operation.http_door import HttpDoor
    from loopdit.deploy.operation.operator_link import OperatorLink

    with (
        closing(OperatorLink(link)) as operator,
        closing(HttpDoor(Console(operator, watch), host, port)) as door,
    ):
        shown = f"[{host}]" if ":" in host else host
        say(f"page      http://{shown}:{door.port}/")
        yield


def _complete(
    server: PolicyServer, recorder: Recorder, path: str, say: Callable[[str], None]
) -> None:
    try:
        server.stop()
    finally:
        _told_at_the_end(recorder, path, say)


def _told_at_the_end(
    recorder: Recorder | ControlRecorder, path: str, say: Callable[[str], None]
) -> None:
    recorded: Recorded = recorder.close()
    stopped = "" if recorded.going_on else "; it stopped early, see the log"
    say(
        f"recorded  {recorded.steps} steps in {recorded.episodes} episodes to {path}, "
        f"{recorded.dropped} steps dropped{stopped}"
    )
