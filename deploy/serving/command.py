"""`policy-serve`: a bundle behind a socket, until it is told to stop.

Prints what it serves, then one line `ready ENDPOINT` once it answers (programs that start it wait
for that line), then a status line whenever something happened.
"""

import logging
import signal
import sys
import time
from dataclasses import dataclass

from loopdit.command import Command, option, run_command
from loopdit.deploy.backends import BACKEND_NAMES, Backend, load_backend
from loopdit.deploy.bundle.bundle import Bundle, default_bundle
from loopdit.deploy.serving.served_bundle import ServedBundle
from loopdit.deploy.serving.server import PolicyServer
from loopdit.errors import ConfigError
from loopdit.policy.encoders.vocabulary import NO_INSTRUCTION, TASK

STATUS_PERIOD_S = 30.0
_POLL_S = 0.1
_SHOWN_INSTRUCTIONS = 10

COMMAND = Command(
    name="policy-serve",
    folder="serve",
    summary="serve a policy bundle to robots and simulators over ZeroMQ (docs/protocol.md).",
    examples=(
        "policy-serve",
        "policy-serve bundle=outputs/bundle loops=2 port=5556",
        "policy-serve backend=openvino precision=bf16 threads=2",
    ),
)


@dataclass(frozen=True)
class ServeConfig:
    """The options of `policy-serve`."""

    bundle: str = option("", "folder of the bundle; empty: the one shipped with loopdit")
    host: str = option("127.0.0.1", "loopback address to listen on")
    port: int = option(5555, "TCP port; 0: any that is free")
    backend: str = option("auto", f"what runs the policy: auto, {', '.join(BACKEND_NAMES)}")
    precision: str = option("fp32", "what it computes in: fp32, fp16, bf16, int8, where it has it")
    threads: int = option(0, "threads for one inference; 0: chosen for this machine")
    loops: int = option(0, "loops when a client does not say; 0: the bundle's choice")
    steps: int = option(0, "denoising steps when a client does not say; 0: the bundle's choice")

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port={self.port} is not a TCP port. Give 0 to 65535.")
        for name in ("threads", "loops", "steps"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}={getattr(self, name)} is negative. Give 0 or more.")


def serve(config: ServeConfig) -> None:
    """Serve until SIGINT or SIGTERM."""
    # The back ends' warnings and the tracebacks of failed inferences, on stderr.
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    path = config.bundle or default_bundle()
    bundle = Bundle.open(path)
    backend = load_backend(bundle, config.backend, config.threads or None, config.precision)
    policy = ServedBundle(bundle, backend)
    host = f"[{config.host}]" if ":" in config.host else config.host
    # Bound before the warm-up: a port in use shows at once.
    server = PolicyServer(
        policy,
        f"tcp://{host}:{config.port}",
        default_loops=config.loops or policy.default_loops,
        default_steps=config.steps,
    )
    # Only noted: a handler may run inside any lock of the main thread, so it must take none.
    signals: list[int] = []
    try:
        policy.warm_up()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda received, _: signals.append(received))
        server.start()
        _say(_description(str(path), bundle, backend, server))
        _say(f"ready {server.endpoint}")
        _watch(server, signals)
    finally:
        server.stop()
    _say(f"stopped: {server.status()}")


def _watch(server: PolicyServer, signals: list[int]) -> None:
    said, next_status_s = server.status(), time.monotonic() + STATUS_PERIOD_S
    while server.running and not signals:
        time.sleep(_POLL_S)
        if time.monotonic() >= next_status_s:
            next_status_s += STATUS_PERIOD_S
            status = server.status()
            if status != said:
                _say(status)
                said = status


def _description(path: str, bundle: Bundle, backend: Backend, server: PolicyServer) -> str:
    spec = bundle.spec
    takes = ", ".join(f"{t.name} {t.shape} {t.dtype}" for t in spec.observations)
    rows = {
        "bundle": f"{path} (model {bundle.model_id})",
        "takes": takes,
        **what_may_vary(bundle),
        "gives": f"chunks of {bundle.horizon} x {spec.action.shape[0]} actions, "
        f"one each {spec.control_period_s:g} s ({spec.action_frame})",
        "back end": f"{backend.name} on {backend.device}, {backend.precision}, "
        f"threads {backend.threads}",
        "loops": f"{', '.join(map(str, bundle.loops))} "
        f"(by default {server.default_loops}, with {server.default_steps} steps)",
        "endpoint": server.endpoint,
    }
    return "\n".join(f"{name:10}{value}" for name, value in rows.items())


def what_may_vary(bundle: Bundle) -> dict[str, str]:
    """What a client may say or leave out, by the name of its line; nothing for a policy of one task
    that needs all it takes."""
    rows: dict[str, str] = {}
    optional = bundle.spec.optional
    if optional:
        rows["may lack"] = f"{', '.join(optional)}; but not all cameras at once"
    kind, known = bundle.manifest.instruction, bundle.manifest.instructions
    if kind != NO_INSTRUCTION:
        how = "one of its tasks" if kind == TASK else "in these words or like them"
        said = "; ".join(repr(instruction) for instruction in known[:_SHOWN_INSTRUCTIONS])
        hidden = len(known) - _SHOWN_INSTRUCTIONS
        more = f"; {hidden} more: policy-info {bundle.path} json=true" if hidden > 0 else ""
        rows["told"] = f"its task by an instruction, {how}: {said}{more}"
    return rows


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """The `policy-serve` entry point."""
    run_command(COMMAND, ServeConfig, serve)


if __name__ == "__main__":
    main()
