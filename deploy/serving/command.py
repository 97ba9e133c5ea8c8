"""`policy-serve`: a bundle behind a socket, until it is told to stop.

Prints what it serves, then one line `ready ENDPOINT` once it answers (programs that start it wait
for that line), then a status line whenever something happened. SIGTERM and SIGINT end it, after
what is in compute; SIGHUP loads the bundle again.
"""

import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial

from loopdit.command import Command, run_command
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.deploy.client import PolicyClient
from loopdit.deploy.doors.inside import Inside
from loopdit.deploy.doors.opening import LOOPBACK, open_doors
from loopdit.deploy.garbage import settle_garbage
from loopdit.deploy.operation import logs
from loopdit.deploy.operation.opening import watched, watched_control
from loopdit.deploy.operation.service_manager import READY, STOPPING, notify
from loopdit.deploy.robot.control.observer import ControlObserver
from loopdit.deploy.robot.control.sockets import ControlEndpoints
from loopdit.deploy.robot.control_mode import run_control
from loopdit.deploy.security.access import access_of
from loopdit.deploy.security.endpoints import host_of
from loopdit.deploy.serving.config import BUNDLE, CONTROL, ZEROS, ServeConfig, bundle_options
from loopdit.deploy.serving.description import description
from loopdit.deploy.serving.making import (
    BundleOptions,
    load_policies,
    load_policy,
    warm_policies,
)
from loopdit.deploy.serving.offer import Offer, offer_of
from loopdit.deploy.serving.reload import Reloader
from loopdit.deploy.serving.replica import Replica
from loopdit.deploy.serving.served_bundle import ServedBundle
from loopdit.deploy.serving.served_policy import ServedPolicy
from loopdit.deploy.serving.server import PolicyServer
from loopdit.deploy.serving.zeros_policy import zeros_for

STATUS_PERIOD_S = 30.0
_POLL_S = 0.1

COMMAND = Command(
    name="policy-serve",
    folder="serve",
    summary="serve a policy bundle to robots and simulators over ZeroMQ (docs/protocol.md).",
    examples=(
        "policy-serve",
        "policy-serve bundle=outputs/bundle loops=2 address=tcp://127.0.0.1:5556",
        "policy-serve policy=zeros",
        "policy-serve backend=openvino precision=bf16 threads=2",
        "policy-serve mode=control control.env=lift",
    ),
)


def serve(config: ServeConfig) -> None:
    """Serve until SIGINT or SIGTERM; SIGHUP loads the bundle again."""
    # The back ends' warnings and the tracebacks of failed inferences, on stderr.
    say = logs.configured(config.log)
    if config.mode == CONTROL:
        _control(config, say)
        return
    options = bundle_options(config)
    policies = _load(config, options)
    access = access_of(config.curve, config.open_to_network, config.messages_per_s)
    # Every port is bound before the warm-up: one that is in use shows at once, and whoever asks
    # meanwhile is told that it warms up, or waits.
    server = PolicyServer(policies, config.address, options.loops, options.steps, access=access)
    inside = Inside(
        lambda: PolicyClient(server.endpoint, link=server.connect()),
        server.offer.spec,
        server.offer.horizon,
    )
    host = host_of(config.address) if config.open_to_network else LOOPBACK
    with (
        watched(
            server,
            host,
            say,
            http_port=config.http_port,
            record=config.record,
            record_mb=config.record_mb,
        ),
        open_doors(
            inside,
            host,
            openpi_port=config.openpi_port,
            openpi_keys=config.openpi_keys,
            groot_port=config.groot_port,
            groot_keys=config.groot_keys,
        ) as doors,
    ):
        # Only noted: a handler may run inside any lock of the main thread, so it must take none.
        signals: list[int] = []
        warm_policies(policies, options)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda received, _: signals.append(received))
        server.start()
        inside.begin()
        bundle = Bundle.open(options.bundle) if config.policy == BUNDLE else None
        say(description(server.offer, server.endpoint, bundle, _runs_on(policies)))
        for line in doors:
            say(line)
        settle_garbage()
        say(f"ready {server.endpoint}")
        notify(READY)
        _watch(server, signals, Reloader(server, partial(_load_warm, config, options), say), say)
        notify(STOPPING)
    say(f"stopped: {server.status()}")


def _control(config: ServeConfig, say: Callable[[str], None]) -> None:
    """Own the control loop until SIGINT or SIGTERM."""
    options = bundle_options(config)
    access = access_of(config.curve, config.open_to_network, config.messages_per_s)
    host = host_of(config.address) if config.open_to_network else LOOPBACK
    zeros = config.policy == ZEROS
    policy = zeros_for(config.spec) if zeros else load_policy(options)

    def warm() -> Offer:
        warm_policies([policy], options)
        return offer_of(policy, options.loops, options.steps)

    def beside(at: ControlEndpoints) -> AbstractContextManager[Sequence[ControlObserver]]:
        return watched_control(
            policy,
            config.control.rate_hz,
            at,
            host,
            say,
            http_port=config.http_port,
            record=config.record,
            record_mb=config.record_mb,
        )

    run_control(policy, warm, config.address, access, config.control, config.safety, say, beside)


def _load(config: ServeConfig, options: BundleOptions) -> Sequence[ServedPolicy]:
    return [zeros_for(config.spec)] if config.policy == ZEROS else load_policies(options)


def _load_warm(config: ServeConfig, options: BundleOptions) -> Sequence[ServedPolicy]:
    policies = _load(config, options)
    warm_policies(policies, options)
    return policies


def _runs_on(policies: Sequence[ServedPolicy]) -> str:
    first = policies[0]
    if not isinstance(first, (ServedBundle, Replica)):
        return ""
    return f"{len(policies)} processes, each {first.runs_on}" if policies[1:] else first.runs_on


def _watch(
    server: PolicyServer, signals: list[int], reloader: Reloader, say: Callable[[str], None]
) -> None:
    said, next_status_s = server.status(), time.monotonic() + STATUS_PERIOD_S
    while server.running:
        time.sleep(_POLL_S)
        received = [signals.pop(0) for _ in range(len(signals))]
        if any(number != signal.SIGHUP for number in received):
            return
        if received:
            reloader.ask()
        if time.monotonic() >= next_status_s:
            next_status_s += STATUS_PERIOD_S
            status = server.status()
            if status != said:
                say(status)
                said = status


def main() -> None:
    """The `policy-serve` and `policy-serve keys` entry point."""
    if sys.argv[1:2] == ["keys"]:
        from loopdit.deploy.security.keys import main as keys

        keys(sys.argv[2:])
        return
    run_command(COMMAND, ServeConfig, serve)


if __name__ == "__main__":
    main()
