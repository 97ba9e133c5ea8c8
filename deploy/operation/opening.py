"""Puts what watches a server beside it: the recorder, and the HTTP port with its counters."""

from collections.abc import Callable, Generator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from loopdit.deploy.clock import MonotonicClock
from loopdit.deploy.operation.recorder import Recorded, Recorder
from loopdit.deploy.serving.server import PolicyServer
from loopdit.errors import ConfigError

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
            # Imported here: who serves without it needs none of its packages.
            try:
                from loopdit.deploy.operation.console import Console
            except ModuleNotFoundError as error:
                raise ConfigError(
                    f"http_port={http_port} needs {error.name}: pip install 'loopdit[serve]'"
                ) from error
            from loopdit.deploy.operation.counts import Counts
            from loopdit.deploy.operation.http_door import HttpDoor
            from loopdit.deploy.operation.live_view import LiveView
            from loopdit.deploy.operation.operator_link import OperatorLink

            clock = MonotonicClock()
            counts, live = Counts(clock), LiveView(server.offer.spec, clock)
            server.observe(counts)
            server.observe(live)
            link = parts.enter_context(closing(OperatorLink(server.connect())))
            console = Console(
                link, lambda: server.running, lambda: server.limited, counts, live, recorder
            )
            door = parts.enter_context(closing(HttpDoor(console, host, http_port)))
            shown = f"[{host}]" if ":" in host else host
            say(f"page      http://{shown}:{door.port}/")
        yield


def _complete(
    server: PolicyServer, recorder: Recorder, path: str, say: Callable[[str], None]
) -> None:
    try:
        server.stop()
    finally:
        say(_told(path, recorder.close()))


def _told(path: str, recorded: Recorded) -> str:
    stopped = "" if recorded.going_on else "; it stopped early, see the log"
    return (
        f"recorded  {recorded.steps} steps in {recorded.episodes} episodes to {path}, "
        f"{recorded.dropped} steps dropped{stopped}"
    )
