"""`policy-serve mode=control`: the server owns the loop, from what a robot observes to its actions.

The one function that the command calls. A robot, real or simulated, is another process: it
publishes what it observes and carries out the actions that are published at a fixed rate
(docs/control.md). With `env=` a simulated one is started as a program of its own, by its name: what
it is made of is none of this side's business, and rendering cannot disturb the loop.
"""

import contextlib
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import TypeAlias

from loopdit.datasets.spec import PolicySpec
from loopdit.deploy.clock import MonotonicClock
from loopdit.deploy.robot.commanded_pose import divided_limits
from loopdit.deploy.robot.control.config import ControlConfig, control_parts
from loopdit.deploy.robot.control.control_loop import ControlLoop
from loopdit.deploy.robot.control.controller import Controller
from loopdit.deploy.robot.control.inference import Inference
from loopdit.deploy.robot.control.messages import Status
from loopdit.deploy.robot.control.observer import ControlObserver
from loopdit.deploy.robot.control.sockets import ControlEndpoints, ControlSockets
from loopdit.deploy.robot.executions import GUIDED, make_execution
from loopdit.deploy.robot.safety.config import SafetyConfig, limits_for
from loopdit.deploy.robot.safety.safety_filter import SafetyFilter
from loopdit.deploy.security.access import Access
from loopdit.deploy.security.curve import NO_KEYS, ClientKeys, new_keys
from loopdit.deploy.security.endpoints import check_endpoint
from loopdit.deploy.security.keys import write_keys, write_public_key
from loopdit.deploy.serving.offer import Offer
from loopdit.deploy.serving.served_policy import ServedPolicy
from loopdit.errors import ConfigError, ServerError

SIMULATED_ROBOT = "loopdit.eval.sim_robot"
_ROBOT_STOP_S = 5.0
Beside: TypeAlias = Callable[
    [ControlEndpoints], contextlib.AbstractContextManager[Sequence[ControlObserver]]
]


def run_control(
    policy: ServedPolicy,
    warm: Callable[[], Offer],
    address: str,
    access: Access,
    control: ControlConfig,
    safety: SafetyConfig,
    say: Callable[[str], None],
    beside: Beside | None = None,
) -> None:
    """Control until SIGINT or SIGTERM, or until the simulated robot has played its episodes.

    `policy` may be cold: `warm` is called when everything is bound and checked that could fail, and
    says what the policy offers. `access` says who may come, to any of the three addresses.
    `beside`: what watches meanwhile, and who is told what is seen and done. Raises ConfigError for
    what cannot be controlled so, ServerError for an address that is taken and for a simulated robot
    that failed.
    """
    clock = MonotonicClock()
    spec = policy.spec
    controller = make_controller(spec, control, safety)
    # What watches and the simulated robot are clients as others are, with keys of this run.
    own = new_keys() if access.keys is not None else None
    keys = access.keys.knowing(own) if access.keys is not None and own is not None else None
    shown: ClientKeys = (own, keys.public) if keys is not None else NO_KEYS
    trusted = keys is not None or access.open_to_network
    addresses = ControlEndpoints(
        check_endpoint(address, trusted),
        check_endpoint(control.actions, trusted),
        check_endpoint(control.observations, trusted),
        shown,
    )
    with contextlib.closing(ControlSockets(addresses, keys, spec)) as sockets:
        at = sockets.endpoints
        with beside(at) if beside else contextlib.nullcontext([]) as observers:
            offer = warm()
            loop = ControlLoop(
                controller,
                Inference(policy, offer, control.budget_s or spec.control_period_s, clock),
                offer,
                1 / control.rate_hz,
                sockets,
                control.instruction,
                clock,
                lambda status: say(status_line(status)),
            )
            for observer in observers:
                loop.observe(observer)
            asked = _stopped_by_signals(loop)
            say(f"actions   {at.actions}, one each {1 / control.rate_hz:g} s")
            say(f"observed  {at.observations}")
            with _simulated_robot(control, at, spec) as robot:
                say(f"ready {at.commands}")
                if robot is not None:
                    threading.Thread(target=_stop_with, args=(robot, loop), daemon=True).start()
                loop.run()
                if robot is not None and robot.poll() and not asked.is_set():
                    raise ServerError(
                        f"the simulated robot, control.env={control.env}, failed with exit status "
                        f"{robot.returncode}; it says why above."
                    )


def _stopped_by_signals(loop: ControlLoop) -> threading.Event:
    """From here on SIGINT and SIGTERM stop the loop, and set what is returned."""
    asked = threading.Event()

    def stop(*_: object) -> None:
        asked.set()
        loop.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    return asked


def make_controller(spec: PolicySpec, control: ControlConfig, safety: SafetyConfig) -> Controller:
    """What decides, for a policy of this spec. Raises ConfigError for what cannot be controlled
    so."""
    parts = control_parts(control.rate_hz, spec.control_period_s)
    if spec.committed is not None and parts > 1:
        raise ConfigError(
            f"mode=control tells a policy of the actions in flight at its own rate alone. Use "
            f"control.rate_hz={1 / spec.control_period_s:g}, or mode=reply, where the client does."
        )
    if control.execution in GUIDED and GUIDED[control.execution] != "identity":
        raise ConfigError(
            f"control.execution={control.execution} needs gradients, which takes longer than what "
            f"it corrects. Use execution=guided, or measure it with policy-eval."
        )
    action = divided_limits(spec.action, parts)
    execution = make_execution(
        control.execution, control.execute_horizon * parts, action, spec.max_committed
    )
    limits = limits_for(safety, action, 1 / control.rate_hz)
    return Controller(execution, SafetyFilter(limits), spec, parts)


def status_line(status: Status) -> str:
    """One line for a person."""
    acted = ", ".join(f"{name} {count}" for name, count in sorted(status.acted.items()))
    return (
        f"{status.rate_hz:.1f} Hz, late {status.late_us.p50} us p50, {status.late_us.p99} p99, "
        f"{status.late_us.max} max; missed {status.missed} of {status.ticks}; chunk "
        f"{status.chunk_us.p50 / 1e3:.1f} ms at K={status.loops}, {status.steps} steps"
        + (f"; safety: {acted}" if acted else "")
        + (f"; STOPPED by {status.stopped_by}" if status.stopped_by else "")
    )


@contextlib.contextmanager
def _simulated_robot(
    control: ControlConfig, at: ControlEndpoints, spec: PolicySpec
) -> Generator["subprocess.Popen[bytes] | None"]:
    if not control.env:
        yield None
        return
    options = {
        "env": control.env,
        "rate_hz": f"{control.rate_hz:g}",
        "actions": at.actions,
        "observations": at.observations,
        "episodes": str(control.episodes),
        **({"image_size": str(spec.cameras[0].shape[-2])} if spec.cameras else {}),
    }
    with tempfile.TemporaryDirectory(prefix="loopdit-keys-") as folder:
        options |= _key_files(Path(folder), at.keys)
        command = [sys.executable, "-m", SIMULATED_ROBOT, *(f"{k}={v}" for k, v in options.items())]
        # Its standard input closes however this process ends, and then it ends as well.
        robot = subprocess.Popen([*command, "orphan=exit"], stdin=subprocess.PIPE)
        try:
            yield robot
        finally:
            robot.terminate()
            try:
                robot.wait(_ROBOT_STOP_S)
            except subprocess.TimeoutExpired:
                robot.kill()
                robot.wait()
            assert robot.stdin is not None
            robot.stdin.close()


def _key_files(folder: Path, shown: ClientKeys) -> dict[str, str]:
    """The options by which a program is told what to show."""
    own, server = shown
    if own is None:
        return {}
    _, secret = write_keys(folder, "robot", own)
    public = write_public_key(folder, "server", server)
    return {"keys": str(secret), "server_key": str(public)}


def _stop_with(robot: "subprocess.Popen[bytes]", loop: ControlLoop) -> None:
    """Stop the loop when the robot's program ends."""
    robot.wait()
    loop.stop()
