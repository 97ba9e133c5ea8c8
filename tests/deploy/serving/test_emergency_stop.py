"""The emergency stop in reply mode: pressed by anybody, it silences the server for everybody."""

from contextlib import closing

import pytest
from tests.deploy.echo_policy import EchoPolicy
from tests.deploy.serving.test_dispatcher import Robot, World, computed, last

from loopdit.deploy.messages import Estop, EstopAck
from loopdit.deploy.robot.control.panel import operator
from loopdit.deploy.serving.server import PolicyServer


def test_while_it_is_pressed_nobody_gets_a_chunk_and_what_was_asked_before_is_refused():
    world = World.of(EchoPolicy(), robots=2)
    first, second = world.open()
    computing = world.observe(first)
    job = world.due()
    assert job is not None
    waiting = world.observe(second)
    stranger = Robot(b"a button")  # it has said no HELLO
    world.robots[stranger.peer] = stranger
    world.say(stranger, Estop(1, True, "the red button"))
    assert stranger.answers == [EstopAck(1, True, "the red button")]
    assert last(second) == (waiting, "STOPPED")
    world.finish(job, *computed(job))
    assert last(first) == (computing, "STOPPED")
    seq = world.observe(first)
    assert last(first) == (seq, "STOPPED")
    assert world.due() is None
    world.say(stranger, Estop(2, False))
    assert stranger.answers[-1] == EstopAck(2, False, "")
    world.observe(first)
    assert world.due() is not None


def test_whoever_pressed_it_first_is_remembered():
    world = World.of(EchoPolicy())
    (robot,) = world.open()
    world.say(robot, Estop(robot.next_seq(), True, "first"))
    world.say(robot, Estop(robot.next_seq(), True, "second"))
    assert robot.answers[-1] == EstopAck(robot.seq, True, "first")


def test_the_log_says_that_it_was_pressed_and_released(caplog: pytest.LogCaptureFixture):
    with (
        PolicyServer(EchoPolicy(), "tcp://127.0.0.1:0") as server,
        closing(operator(server.endpoint)) as panel,
    ):
        panel.stop(True, "the red button")
        panel.stop(False)
    assert caplog.messages == ["emergency stop: the red button", "emergency stop: released"]
