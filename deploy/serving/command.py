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
from dataclasses import dataclass
from functools import partial

from loopdit.command import Command, option, require_choice, require_effect, run_command
from loopdit.deploy.backends import AUTO, BACKEND_NAMES
from loopdit.deploy.bundle.bundle import Bundle, default_bundle
from loopdit.deploy.client import PolicyClient
from loopdit.deploy.doors.opening import LOOPBACK, open_doors
from loopdit.deploy.operation import logs
from loopdit.deploy.operation.opening import watched, watched_control
from loopdit.deploy.operation.service_manager import READY, STOPPING, notify
from loopdit.deploy.robot.control.config import ControlConfig
from loopdit.deploy.robot.control_mode import run_control
from loopdit.deploy.robot.safety.config import SafetyConfig
from loopdit.deploy.security.access import CurveConfig, access_of
from loopdit.deploy.security.endpoints import host_of
from loopdit.deploy.security.limits import NETWORK_MESSAGES_PER_S
from loopdit.deploy.serving.description import description
from loopdit.deploy.serving.making import (
    BundleOptions,
    load_policy,
    warm,
    warm_policies,
    warm_policy,
)
from loopdit.deploy.serving.offer import offer_of
from loopdit.deploy.serving.reload import Reloader
from loopdit.deploy.serving.replica import Replica
from loopdit.deploy.serving.served_bundle import ServedBundle
from loopdit.deploy.serving.served_policy import ServedPolicy
from loopdit.deploy.serving.server import DEFAULT_ENDPOINT, PolicyServer
from loopdit.deploy.serving.zeros_policy import ZerosPolicy, spec_at
from loopdit.errors import ConfigError

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

BUNDLE, ZEROS = "bundle", "zeros"
REPLY, CONTROL = "reply", "control"


@dataclass(frozen=True)
class ServeConfig:
    """The options of `policy-serve`."""

    bundle: str = option("", "folder of the bundle; empty: the one shipped with loopdit")
    policy: str = option(BUNDLE, "bundle; or zeros, to try a robot's plumbing without weights")
    spec: str = option(
        "", "what zeros are for: a bundle, a store, a JSON; empty: the shipped bundle"
    )
    address: str = option(DEFAULT_ENDPOINT, "where to listen; port 0: any that is free")
    mode: str = option(REPLY, "reply: answer observations; control: own the control loop")
    backend: str = option("auto", f"what runs the policy: auto, {', '.join(BACKEND_NAMES)}")
    precision: str = option("fp32", "what it computes in: fp32, fp16, bf16, int8, where it has it")
    threads: int = option(0, "threads for one inference; 0: chosen for this machine")
    loops: str = option(AUTO, "loops when a client does not say: auto, to be in time, or a K")
    steps: int = option(0, "denoising steps when a client does not say; 0: the bundle's, or fewer")
    open_to_network: bool = option(
        False, "yes, anybody who reaches address= may command the robot, without keys"
    )
    curve: CurveConfig = option(CurveConfig(), "keys: who may connect from elsewhere")
    messages_per_s: float = option(
        0.0,
        f"most messages of one client; 0: none on loopback, {NETWORK_MESSAGES_PER_S:g} elsewhere",
    )
    openpi_port: int = option(0, "also answer openpi's clients at this port; 0: do not")
    openpi_keys: str = option("", "what they call observations: OURS=THEIRS,...; empty: as LIBERO")
    groot_port: int = option(0, "also answer GR00T's clients at this port; 0: do not")
    groot_keys: str = option("", "what they call observations: OURS=THEIRS,...")
    batch: int = option(0, "most requests computed at once; 0: what pays on the back end")
    replicas: int = option(1, "processes that compute at the same time")
    http_port: int = option(
        0, "a live page with an emergency stop, /healthz, /metrics at this port; 0: none"
    )
    record: str = option("", "store (FOLDER.zarr) to record what is served to; empty: do not")
    record_mb: int = option(1024, "most memory, in MiB, for what is not yet in that store")
    log: str = option(logs.TEXT, "text, or json: one object a line")
    control: ControlConfig = option(ControlConfig(), "how mode=control owns the loop")
    safety: SafetyConfig = option(
        SafetyConfig(), "limits between policy and robot, in mode=control"
    )

    def __post_init__(self) -> None:
        require_choice("policy", self.policy, (BUNDLE, ZEROS))
        require_choice("mode", self.mode, (REPLY, CONTROL))
        require_choice("log", self.log, (logs.TEXT, logs.JSON))
        if self.loops != AUTO and not (self.loops.isdecimal() and int(self.loops)):
            raise ConfigError(f"loops={self.loops} is neither auto nor a number of loops.")
        for name in ("openpi_port", "groot_port", "http_port"):
            if not 0 <= getattr(self, name) <= 65535:
                raise ConfigError(f"{name}={getattr(self, name)} is no port. Give 0 to 65535.")
        if not self.record:
            require_effect(self, ("record_mb",), "record=FOLDER.zarr")
        if not self.openpi_port:
            require_effect(self, ("openpi_keys",), "openpi_port=PORT")
        if not self.groot_port:
            require_effect(self, ("groot_keys",), "groot_port=PORT")
        for name, least in {
            "threads": 0,
            "steps": 0,
            "batch": 0,
            "replicas": 1,
            "record_mb": 1,
        }.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name}={getattr(self, name)} is below {least}, the least.")
        if self.policy == ZEROS:
            computing = ("bundle", "backend", "precision", "threads", "batch", "replicas")
            require_effect(self, computing, f"policy={BUNDLE}")
        else:
            require_effect(self, ("spec",), f"policy={ZEROS}")
        if self.mode == CONTROL:
            replying = (
                *("replicas", "batch", "record", "openpi_port", "groot_port"),
                *("open_to_network", "curve", "messages_per_s"),
            )
            require_effect(self, replying, f"mode={REPLY}")
        else:
            require_effect(self, ("control", "safety"), f"mode={CONTROL}")

    @property
    def pinned_loops(self) -> int:
        """The K to run whatever the time; 0: chosen for each request."""
        return 0 if self.loops == AUTO else int(self.loops)


def serve(config: ServeConfig) -> None:
    """Serve until SIGINT or SIGTERM; SIGHUP loads the bundle again."""
    # The back ends' warnings and the tracebacks of failed inferences, on stderr.
    say = logs.configured(config.log)
    if config.mode == CONTROL:
        _control(config, say)
        return
    options = bundle_options(config)
    load = partial(_warm_policies, config)
    # One in this process is loaded before the address is bound, and warmed up after: a bundle that
    # is wrong and a port in use both show at once.
    alone = load_policy(options) if config.policy == BUNDLE and config.replicas == 1 else None
    policies = load() if alone is None else [alone]
    access = access_of(config.curve, config.open_to_network, config.messages_per_s)
    server = PolicyServer(policies, config.address, options.loops, options.steps, access=access)
    host = host_of(config.address) if config.open_to_network else LOOPBACK
    with watched(
        server,
        host,
        say,
        http_port=config.http_port,
        record=config.record,
        record_mb=config.record_mb,
    ):
        # Only noted: a handler may run inside any lock of the main thread, so it must take none.
        signals: list[int] = []
        if alone is not None:
            warm(alone, options)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda received, _: signals.append(received))
        server.start()
        bundle = Bundle.open(options.bundle) if config.policy == BUNDLE else None
        say(description(server.offer, server.endpoint, bundle, _runs_on(policies)))
        with open_doors(
            lambda: PolicyClient(server.endpoint, link=server.connect()),
            host,
            openpi_port=config.openpi_port,
            openpi_keys=config.openpi_keys,
            groot_port=config.groot_port,
            groot_keys=config.groot_keys,
        ) as doors:
            for line in doors:
                say(line)
            say(f"ready {server.endpoint}")
            notify(READY)
            _watch(server, signals, Reloader(server, load, say), say)
        notify(STOPPING)
    say(f"stopped: {server.status()}")


def _control(config: ServeConfig, say: Callable[[str], None]) -> None:
    """Own the control loop until SIGINT or SIGTERM."""
    options = bundle_options(config)
    zeros = config.policy == ZEROS
    policy = ZerosPolicy(*spec_at(config.spec)) if zeros else warm_policy(options)
    offer = offer_of(policy, options.loops, options.steps)

    def beside(commands: str, actions: str) -> AbstractContextManager[None]:
        rate_hz = config.control.rate_hz
        return watched_control(commands, actions, offer.spec, rate_hz, say, config.http_port)

    run_control(policy, offer, config.address, config.control, config.safety, say, beside)


def bundle_options(config: ServeConfig) -> BundleOptions:
    """What `making` goes by."""
    return BundleOptions(
        bundle=config.bundle or (str(default_bundle()) if config.policy == BUNDLE else ""),
        backend=config.backend,
        precision=config.precision,
        threads=config.threads,
        loops=config.pinned_loops,
        steps=config.steps,
        batch=config.batch,
        replicas=config.replicas,
    )


def _warm_policies(config: ServeConfig) -> Sequence[ServedPolicy]:
    if config.policy == ZEROS:
        return [ZerosPolicy(*spec_at(config.spec))]
    return warm_policies(bundle_options(config))


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
