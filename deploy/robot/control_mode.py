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
import threading
from collections.abc import Callable, Generator

from loopdit.datasets.spec import PolicySpec
from loopdit.deploy.clock import MonotonicClock
from loopdit.deploy.robot.commanded_pose import divided_limits
from loopdit.deploy.robot.control.config import ControlConfig, control_parts
from loopdit.deploy.robot.control.control_loop import ControlLoop
from loopdit.deploy.robot.control.controller import Controller
from loopdit.deploy.robot.control.inference import Inference
from loopdit.deploy.robot.control.messages import Status
from loopdit.deploy.robot.executions import GUIDED, make_execution
from loopdit.deploy.robot.safety.config import SafetyConfig, limits_for
from loopdit.deploy.robot.safety.safety_filter import SafetyFilter
from loopdit.deploy.security.endpoints import check_endpoint, reaches_only_this_machine
from loopdit.deploy.serving.offer import Offer
from loopdit.deploy.serving.served_policy import ServedPolicy
from loopdit.errors import ConfigError, ServerError

SIMULATED_ROBOT = "loopdit.eval.sim_robot"
_ROBOT_STOP_S = 5.0


def run_control(
    policy: ServedPolicy,
    offer: Offer,
    address: str,
    control: ControlConfig,
    safety: SafetyConfig,
    say: Callable[[str], None],
    beside: Callable[[str, str], contextlib.AbstractContextManager[None]] | None = None,
) -> None:
    """Control until SIGINT or SIGTERM, or until the simulated robot has played its episodes.

    `policy` is warm. `beside`: what watches meanwhile, given the endpoints of commands and of
    actions. Raises ConfigError for what cannot be controlled so, ServerError for an
    address that is taken and for a simulated robot that failed.
    """
    clock = MonotonicClock()
    period_s = 1 / control.rate_hz
    loop = ControlLoop(
        make_controller(offer, control, safety),
        Inference(policy, offer, control.budget_s or offer.spec.control_period_s, clock),
        offer,
        period_s,
        (_near(address), _near(control.actions), _near(control.observations)),
        control.instruction,
        clock,
        lambda status: say(status_line(status)),
    )
    asked = threading.Event()

    def stop(*_: object) -> None:
        asked.set()
        loop.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    commands, actions, observations = loop.endpoints
    say(f"actions   {actions}, one each {period_s:g} s")
    say(f"observed  {observations}")
    with (
        beside(commands, actions) if beside else contextlib.nullcontext(),
        _simulated_robot(control, actions, observations, offer.spec) as robot,
    ):
        say(f"ready {commands}")
        if robot is not None:
            threading.Thread(target=_stop_with, args=(robot, loop), daemon=True).start()
        loop.run()
        if robot is not None and robot.poll() and not asked.is_set():
            raise ServerError(
                f"the simulated robot, control.env={control.env}, failed with exit status "
                f"{robot.returncode}; it says why above."
            )


def _near(endpoint: str) -> str:
    """`endpoint` as ZeroMQ binds it. Raises ConfigError where others reach it."""
    checked = check_endpoint(endpoint, trusted=True)
    if not reaches_only_this_machine(checked):
        raise ConfigError(
            f"{endpoint}: mode=control has no keys, so it listens on this machine alone. Use a "
            "loopback address or ipc://PATH, and an SSH tunnel from elsewhere."
        )
    return checked


def make_controller(offer: Offer, control: ControlConfig, safety: SafetyConfig) -> Controller:
    """What decides, for what is offered. Raises ConfigError for what cannot be controlled so."""
    spec = offer.spec
    parts = control_parts(control.rate_hz, spec.control_period_s)
    if spec.history > 1 or (spec.committed is not None and parts > 1):
        raise ConfigError(
            f"mode=control gives a policy the latest observation, and tells it of actions in "
            f"flight at its own rate alone; this one has a history of {spec.history} and is told "
            f"of {spec.max_committed}. Use control.rate_hz={1 / spec.control_period_s:g}, or "
            f"mode=reply, where the client keeps both."
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
    control: ControlConfig, actions: str, observations: str, spec: PolicySpec
) -> Generator["subprocess.Popen[bytes] | None"]:
    if not control.env:
        yield None
        return
    options = {
        "env": control.env,
        "rate_hz": f"{control.rate_hz:g}",
        "actions": actions,
        "observations": observations,
        "episodes": str(control.episodes),
        **({"image_size": str(spec.cameras[0].shape[-2])} if spec.cameras else {}),
    }
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


def _stop_with(robot: "subprocess.Popen[bytes]", loop: ControlLoop) -> None:
    """Stop the loop when the robot's program ends."""
    robot.wait()
    loop.stop()
