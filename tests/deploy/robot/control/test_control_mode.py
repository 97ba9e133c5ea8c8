"""`policy-serve mode=control` as a user runs it: real processes, a robot beside them, real time."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
import zmq
from tests.deploy.raw_client import ANY_PORT
from tests.deploy.serving.serving_process import Serving, serving

from loopdit.deploy.bundle.bundle import Bundle, default_bundle
from loopdit.deploy.messages import Error, EstopAck, Message, Obs, Ping, Pong
from loopdit.deploy.protocol import decode, encode
from loopdit.deploy.robot.control.config import ControlConfig, control_parts
from loopdit.deploy.robot.control.messages import CONTROL_WIRE, Action, Status
from loopdit.deploy.robot.control.panel import operator
from loopdit.deploy.robot.control.robot_link import RobotLink
from loopdit.deploy.robot.control_mode import run_control
from loopdit.deploy.robot.safety.config import SafetyConfig
from loopdit.deploy.security.access import Access
from loopdit.deploy.serving.offer import Offer
from loopdit.deploy.serving.zeros_policy import zeros_for
from loopdit.errors import ConfigError, ServerError


class World:
    """A server in control mode, what it prints and publishes, and a robot that stands still."""

    def __init__(self, server: Serving, watchdog_s: float = 1.0) -> None:
        lines = server.until("ready")
        self.server = server
        said = {line.split()[0]: line.split()[1].rstrip(",") for line in lines}
        self.commands, self.actions = said["ready"], said["actions"]
        self.link = RobotLink(self.actions, said["observed"], watchdog_s)
        spec = Bundle.open(default_bundle()).spec
        self.observation = {t.name: np.zeros(t.shape, t.dtype) for t in spec.observations}
        self.seq = 0

    def run(self, seconds: float) -> list[Action]:
        """Observe and do what comes; the actions that came."""
        until_s, came = time.monotonic() + seconds, list[Action]()
        while time.monotonic() < until_s:
            done = self.link.action(0.05)
            if done is not None:
                came.append(done.message)
                np.testing.assert_array_equal(done.action[:6], np.zeros(6))
            if done is None or done.message.seq % 5 == 0:
                self.link.observe(self.observation)
        return came

    def until(self, source: str, within_s: float = 20.0) -> None:
        """Run until an action of this source comes that was sent from now on, however busy the
        machine is."""
        now_ns, deadline_s, seen = time.monotonic_ns(), time.monotonic() + within_s, ""
        while seen != source:
            assert time.monotonic() < deadline_s, f"of {source} nothing came, but {seen}"
            came = [one.source for one in self.run(0.05) if one.sent_ns > now_ns]
            seen = source if source in came else "".join(came[-1:])
            if self.link.stopped:  # a second without an action, and it latches for good
                self.link.reset()

    def begin(self) -> None:
        """It moves, whatever was before: between two tests nothing is observed, and both watchdogs
        rightly latch."""
        self.link.reset()
        with closing(operator(self.commands)) as line:
            line.reset()
        self.until("policy")

    def ask(self, message: Message) -> Message:
        dealer = zmq.Context.instance().socket(zmq.DEALER)
        dealer.connect(self.commands)
        dealer.send_multipart(encode(message))
        assert dealer.poll(5000)
        answer, _ = decode(dealer.recv_multipart(), 0)
        dealer.close(linger=0)
        return answer


@pytest.fixture(scope="module")
def world() -> Generator[World]:
    with controlling() as made:
        yield made


@contextmanager
def controlling(*options: str) -> Generator[World]:
    addresses = (
        f"address={ANY_PORT}",
        f"control.actions={ANY_PORT}",
        f"control.observations={ANY_PORT}",
    )
    with serving("mode=control", "policy=zeros", *addresses, *options) as server:
        made = World(server)
        yield made
        made.link.close()


# Of real time: a machine that is busy with other tests does not hold 50 Hz.
@pytest.mark.slow
def test_five_seconds_at_50_hz_reach_every_subscriber_without_a_hole():
    # Its watchdog has tests of its own, and rightly stops a machine that is too busy.
    with controlling("safety.watchdog_periods=250") as world:
        listener = zmq.Context.instance().socket(zmq.SUB)
        listener.subscribe(b"")
        listener.connect(world.actions)
        came = world.run(5.5)
        heard: list[Action | Status] = []
        while listener.poll(100):
            message, _ = CONTROL_WIRE.decode(listener.recv_multipart(), 10_000)
            assert isinstance(message, (Action, Status))
            heard.append(message)
            if len(heard) > len(came) + 20:
                break
        listener.close()
        for messages in (came, [one for one in heard if isinstance(one, Action)]):
            seqs = [one.seq for one in messages]
            assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
        assert world.link.lost == 0
        last = max((one for one in heard if isinstance(one, Status)), key=lambda one: one.seq)
        # Every period was ticked or counted as missed, on one absolute grid.
        first, final = came[0], came[-1]
        periods = (final.due_ns - first.due_ns) / 20e6
        assert abs(periods - round(periods)) < 1e-3
        assert round(periods) <= final.seq - first.seq + last.missed
        assert final.seq - first.seq >= 200  # of 250, on a machine with other work
        assert all(one.sent_ns - one.due_ns >= 0 for one in came)
        assert {one.source for one in came} <= {"policy", "hold"}


@pytest.mark.system
def test_an_emergency_stop_over_the_wire_is_obeyed_within_two_periods_and_kept(world: World):
    world.begin()
    panel = operator(world.commands)
    assert panel.stop(True, "the red button") == EstopAck(1, True, "the red button")
    sources = [one.source for one in world.run(0.5)]
    assert sources[3:]
    assert set(sources[-3:]) == {"emergency_stop"}
    panel.reset()  # which does not release it
    assert panel.stop(True, "again").reason == "the red button"
    assert panel.stop(False) == EstopAck(4, False, "")
    panel.close()
    world.until("policy")


@pytest.mark.system
def test_it_answers_pings_and_refuses_what_is_for_reply_mode(world: World):
    assert isinstance(world.ask(Ping(1)), Pong)
    refused = world.ask(Obs(2, 1))
    assert isinstance(refused, Error)
    assert refused.code == "UNKNOWN_KIND"


@pytest.mark.system
def test_a_panel_that_nobody_hears_says_so_in_time():
    said = subprocess.run(
        [sys.executable, "-m", "loopdit.deploy.robot.control.panel", "stop", "tcp://127.0.0.1:9"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert said.returncode == 1
    assert said.stderr == (
        "panel: error: no answer from tcp://127.0.0.1:9 within 1 s. Press the robot's own button.\n"
    )


@pytest.mark.system
def test_a_server_that_was_paused_for_two_seconds_latches_both_watchdogs_until_a_reset(
    world: World,
):
    world.begin()
    world.server.process.send_signal(signal.SIGSTOP)
    world.run(2.0)  # what was on its way, and then nothing
    assert world.link.stopped
    world.server.process.send_signal(signal.SIGCONT)
    assert world.run(0.3) == []  # the robot's own watchdog hands nothing out
    world.link.reset()
    world.until("watchdog")
    assert {one.source for one in world.run(0.4)} <= {"watchdog"}
    with closing(operator(world.commands)) as panel:
        panel.reset()
    world.until("policy")


@pytest.mark.system
@pytest.mark.parametrize("more", ["history", "committed"])
def test_a_robot_sends_what_it_observes_and_what_a_policy_is_given_besides_is_kept_here(
    more: str, tmp_path: Path
):
    single = Bundle.open(default_bundle()).spec
    spec = single.with_history(3) if more == "history" else single.with_committed(4)
    (tmp_path / "spec.json").write_text(json.dumps(spec.to_dict()))
    with serving(
        *("mode=control", "policy=zeros", f"spec={tmp_path / 'spec.json'}", f"address={ANY_PORT}"),
        *(f"control.actions={ANY_PORT}", f"control.observations={ANY_PORT}"),
        *(("control.rate_hz=10", "control.execution=informed") if more == "committed" else ()),
    ) as server:
        world = World(server)
        with closing(world.link):
            world.until("policy")


@pytest.mark.system
def test_a_taken_address_is_refused_in_one_line(world: World):
    with serving(
        "mode=control", "policy=zeros", f"address={ANY_PORT}", f"control.actions={world.actions}"
    ) as server:
        status, errors = server.end()
    assert status == 1
    assert f"cannot listen at {world.actions}: Address already in use" in errors


def test_what_can_fail_has_failed_before_anything_is_warmed_up():
    policy = zeros_for("")
    warmed: list[str] = []

    def warm() -> Offer:
        warmed.append("warmed")
        raise AssertionError

    def run(execution: str = "tracked") -> None:
        control = ControlConfig(actions=ANY_PORT, observations=ANY_PORT, execution=execution)
        access = Access()
        run_control(policy, warm, taken, access, control, SafetyConfig(), warmed.append)

    with zmq.Context() as context, closing(context.socket(zmq.ROUTER)) as other:
        taken = f"tcp://127.0.0.1:{other.bind_to_random_port('tcp://127.0.0.1')}"
        with pytest.raises(ServerError, match="Address already in use"):
            run()
        with pytest.raises(ConfigError, match="needs gradients"):
            run(execution="guided-full")
    with pytest.raises(AssertionError):  # the port is free again
        run()
    assert warmed == ["warmed"]


def test_a_rate_that_is_no_multiple_of_the_policys_is_refused_with_one_that_is():
    assert control_parts(50.0, 0.1) == 5
    assert control_parts(10.0, 0.1) == 1
    with pytest.raises(ConfigError, match=r"own rate, 10 Hz. Use 20"):
        control_parts(25.0, 0.1)
    with pytest.raises(ConfigError, match=r"Use 10"):
        control_parts(3.0, 0.1)


@pytest.mark.parametrize(
    "options", [{"rate_hz": 0}, {"execute_horizon": 0}, {"execution": "best"}, {"budget_s": -1}]
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, object]):
    with pytest.raises(ConfigError):
        ControlConfig(**options)  # pyright: ignore[reportArgumentType] - by name
