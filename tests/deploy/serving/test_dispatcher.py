"""The server's decisions without sockets and threads: any order of events, and time as a number."""

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.deploy.echo_policy import HORIZON, EchoPolicy, expected_actions, observation
from tests.deploy.planned_policy import MS, PlannedEcho

from loopdit.deploy.messages import (
    Bye,
    Chunk,
    Error,
    ErrorCode,
    Hello,
    Message,
    Obs,
    Ping,
    Reset,
    Welcome,
)
from loopdit.deploy.protocol import encode
from loopdit.deploy.serving.answers import Job
from loopdit.deploy.serving.batching import least_s
from loopdit.deploy.serving.dispatcher import Dispatcher, Reply
from loopdit.deploy.serving.offer import offer_of
from loopdit.deploy.serving.served_policy import (
    Inference,
    InferenceFailed,
    Outcome,
    ReplicaLost,
)
from loopdit.errors import ConfigError, ObservationError, OutOfMemory


@dataclass
class FakeClock:
    now: float = 100.0


@dataclass
class Robot:
    """A connection: what it sent and which answers it got."""

    peer: bytes
    seq: int = 0
    epoch: int = 0
    sent: list[int] = field(default_factory=list[int])
    answers: list[Message] = field(default_factory=list[Message])

    def next_seq(self) -> int:
        self.seq += 1
        return self.seq


@dataclass
class World:
    """A dispatcher, its clock and the robots around it."""

    clock: FakeClock
    dispatcher: Dispatcher
    robots: dict[bytes, Robot]

    @classmethod
    def of(cls, policy: EchoPolicy, robots: int = 1, loops: int = 0, steps: int = 0) -> "World":
        clock = FakeClock()
        made = [Robot(f"robot {i}".encode()) for i in range(robots)]
        dispatcher = Dispatcher(offer_of(policy, loops, steps), clock)
        return cls(clock, dispatcher, {robot.peer: robot for robot in made})

    def deliver(self, replies: list[Reply]) -> list[Reply]:
        for reply in replies:
            if reply.peer in self.robots:
                self.robots[reply.peer].answers.append(reply.message)
        return replies

    def say(
        self, robot: Robot, message: Message, tensors: dict[str, np.ndarray] | None = None
    ) -> list[Reply]:
        frames = [bytes(frame) for frame in encode(message, tensors)]
        return self.deliver(self.dispatcher.receive(robot.peer, frames))

    def open(self) -> list[Robot]:
        for number, robot in enumerate(self.robots.values(), start=1):
            self.say(robot, Hello(robot.next_seq(), 1, 1, session=number))
            robot.epoch = 1
        return list(self.robots.values())

    def observe(
        self, robot: Robot, budget_ms: float = 0, loops: int = 0, steps: int = 0, seed: int = 0
    ) -> int:
        seq, budget_us = robot.next_seq(), round(1e3 * budget_ms)
        obs = Obs(seq, robot.epoch, budget_us=budget_us, loops=loops, steps=steps, seed=seed)
        self.say(robot, obs, observation(seq))
        return seq

    def due(self) -> Job | None:
        self.deliver(self.dispatcher.expire())
        return self.dispatcher.next_job()

    def finish(self, job: Job, *outcomes: Outcome, took_ms: float = 0) -> list[Reply]:
        self.clock.now += took_ms * MS
        return self.deliver(self.dispatcher.finish(job, outcomes or computed(job), self.clock.now))


def computed(job: Job) -> list[Outcome]:
    loops, steps = job.rung.loops, job.rung.steps
    return [
        Inference(expected_actions(r.observation, r.noise_seed, loops, steps), loops, steps, 1, 2)
        for r in job.requests
    ]


def last(robot: Robot) -> tuple[int, str]:
    """Of the last answer: its seq, and the code of its error or what else it is."""
    answer = robot.answers[-1]
    return answer.seq, answer.code if isinstance(answer, Error) else type(answer).__name__.upper()


@pytest.mark.parametrize(
    ("budget_ms", "ran"),
    [(0, (2, 10)), (30, (2, 10)), (20, (1, 10)), (9, (1, 5)), (4.5, (1, 1))],
)
def test_depth_is_chosen_so_that_the_chunk_is_there_in_time(budget_ms: float, ran: tuple[int, int]):
    world = World.of(PlannedEcho())
    (robot,) = world.open()
    world.observe(robot, budget_ms)
    job = world.due()
    assert job is not None
    world.finish(job)
    chunk = robot.answers[-1]
    assert isinstance(chunk, Chunk)
    assert (chunk.loops, chunk.steps) == ran


def test_time_in_the_queue_counts():
    world = World.of(PlannedEcho(), robots=2)
    first, second = world.open()
    world.observe(first)
    job = world.due()
    world.observe(second, budget_ms=30)
    assert job is not None
    world.finish(job, took_ms=12)
    job = world.due()
    assert job is not None
    assert (job.rung.loops, job.rung.steps) == (1, 10)  # 18 ms are left: K = 2 takes 25


def test_what_cannot_be_there_in_time_is_late_at_once_and_not_computed():
    world = World.of(PlannedEcho())
    (robot,) = world.open()
    seq = world.observe(robot, budget_ms=3)
    assert world.due() is None
    assert last(robot) == (seq, ErrorCode.LATE)
    answer = robot.answers[-1]
    assert isinstance(answer, Error)
    assert "budget of 3.0 ms does not suffice" in answer.message
    assert "takes 4.0 ms" in answer.message
    assert answer.retryable


def test_the_next_deadline_is_when_it_must_begin_at_the_latest():
    world = World.of(PlannedEcho())
    (robot,) = world.open()
    world.observe(robot, budget_ms=50)
    assert world.dispatcher.next_deadline_s == pytest.approx(world.clock.now + 46 * MS)


@pytest.mark.parametrize(("loops", "steps"), [(1, 0), (2, 0), (0, 7), (2, 3)])
def test_what_the_server_pins_is_run_whatever_the_budget(loops: int, steps: int):
    world = World.of(PlannedEcho(), loops=loops, steps=steps)
    (robot,) = world.open()
    for budget_ms in (0, 200, 15, 8):
        world.observe(robot, budget_ms)
        job = world.due()
        if job is None:
            assert last(robot)[1] == ErrorCode.LATE
            continue
        assert job.rung.loops in (loops, *((1, 2) if not loops else ()))
        assert not steps or job.rung.steps == steps
        world.finish(job)


def test_steps_that_the_sampler_has_not_are_unsupported():
    world = World.of(PlannedEcho())
    (robot,) = world.open()
    seq = world.observe(robot, steps=21)
    assert last(robot) == (seq, ErrorCode.UNSUPPORTED)
    answer = robot.answers[-1]
    assert isinstance(answer, Error)
    assert answer.message == "steps=21 is not served. Ask for 1 to 20."
    with pytest.raises(ConfigError, match="steps=21 is not served"):
        offer_of(PlannedEcho(), pinned_steps=21)


def test_requests_that_wait_are_computed_together_where_that_pays():
    world = World.of(PlannedEcho(), robots=5)
    robots = world.open()
    for robot in robots:
        world.observe(robot)
    job = world.due()
    assert job is not None
    assert [r.peer for r in job.requests] == [r.peer for r in robots[:4]]
    world.finish(job)
    for robot in robots[:4]:
        chunk = robot.answers[-1]
        assert isinstance(chunk, Chunk)
        assert chunk.seq == robot.seq
    job = world.due()
    assert job is not None
    assert [r.peer for r in job.requests] == [robots[4].peer]


def test_each_of_a_batch_gets_its_own_actions():
    world = World.of(PlannedEcho(), robots=4)
    robots = world.open()
    for robot in robots:
        world.observe(robot, seed=int(robot.peer[-1:]))
    job = world.due()
    assert job is not None
    for reply in world.finish(job):
        robot = world.robots[reply.peer]
        seed = int(reply.peer[-1:])
        expected = expected_actions(observation(robot.seq), seed=seed)
        np.testing.assert_array_equal(reply.tensors["action"], expected)


def test_a_batch_never_makes_a_member_late():
    world = World.of(PlannedEcho(), robots=4)
    robots = world.open()
    world.observe(robots[0], budget_ms=26)  # alone 24 ms, as one of four 48
    for robot in robots[1:]:
        world.observe(robot)
    job = world.due()
    assert job is not None
    assert len(job.requests) == 2  # which takes no longer than one
    assert job.rung.loops == 2


def test_a_batch_never_makes_late_who_is_not_in_it():
    world = World.of(PlannedEcho(), robots=5)
    robots = world.open()
    for robot in robots[:4]:
        world.observe(robot)
    world.observe(robots[4], loops=1, budget_ms=60)
    job = world.due()
    assert job is not None
    assert job.requests[0].peer == robots[4].peer  # the earliest deadline
    world.finish(job)
    world.observe(robots[4], loops=1, budget_ms=40)  # of the next round
    job = world.due()
    assert job is not None
    assert len(job.requests) == 2  # four would end after 48 ms


def test_a_failure_in_a_batch_is_the_answer_of_that_request_alone():
    world = World.of(PlannedEcho(), robots=2)
    robots = world.open()
    for robot in robots:
        world.observe(robot)
    job = world.due()
    assert job is not None
    good = computed(job)
    world.finish(job, good[0], ObservationError("what is 'fly'?"))
    assert last(robots[0])[1] == "CHUNK"
    assert last(robots[1])[1] == ErrorCode.UNSUPPORTED


@pytest.mark.parametrize(
    ("outcome", "code", "retryable"),
    [
        (InferenceFailed("the policy raised ValueError: x"), ErrorCode.INTERNAL, False),
        (OutOfMemory("the GPU is full."), ErrorCode.OVERLOAD, True),
        (ObservationError("no such task"), ErrorCode.UNSUPPORTED, False),
        (
            Inference(np.full((HORIZON, 3), np.nan, np.float32), 2, 10, 0, 0),
            ErrorCode.INTERNAL,
            False,
        ),
        (Inference(np.zeros((1, 3), np.float32), 2, 10, 0, 0), ErrorCode.INTERNAL, False),
    ],
)
def test_what_goes_wrong_in_compute_is_a_typed_error(
    outcome: Outcome, code: ErrorCode, retryable: bool
):
    world = World.of(PlannedEcho())
    (robot,) = world.open()
    seq = world.observe(robot)
    job = world.due()
    assert job is not None
    world.finish(job, outcome)
    answer = robot.answers[-1]
    assert isinstance(answer, Error)
    assert (answer.seq, answer.code, answer.retryable) == (seq, code, retryable)


def test_what_a_lost_replica_had_is_computed_by_another_and_given_up_after_two():
    world = World.of(PlannedEcho())
    (robot,) = world.open()
    seq = world.observe(robot)
    for _ in range(2):
        job = world.due()
        assert job is not None
        assert last(robot) != (seq, ErrorCode.INTERNAL)
        world.finish(job, ReplicaLost("its process ended"))
    assert last(robot) == (seq, ErrorCode.INTERNAL)
    assert world.due() is None


def test_another_policy_serves_what_waits_and_the_old_one_finishes_what_is_out():
    world = World.of(EchoPolicy(), robots=3)
    computing, waiting, asking = world.open()
    world.observe(computing)
    job = world.due()
    world.observe(waiting)
    world.observe(asking, steps=500)
    world.deliver(world.dispatcher.replace(offer_of(PlannedEcho())))
    assert last(asking)[1] == ErrorCode.UNSUPPORTED
    assert job is not None
    world.finish(job)
    job = world.due()
    assert job is not None
    world.finish(job)
    chunks = [robot.answers[-1] for robot in (computing, waiting)]
    assert [c.model_id for c in chunks if isinstance(c, Chunk)] == ["echo-0", "planned-1"]


def test_a_draining_server_finishes_what_is_out_and_takes_nothing_new():
    world = World.of(EchoPolicy(), robots=3)
    computing, waiting, late = world.open()
    world.observe(computing)
    job = world.due()
    world.observe(waiting)
    world.deliver(world.dispatcher.drain("bye soon."))
    assert last(waiting) == (waiting.seq, ErrorCode.CLOSING)
    assert last(late) != (late.seq, ErrorCode.CLOSING)
    world.observe(late)
    assert last(late) == (late.seq, ErrorCode.CLOSING)
    world.say(late, Ping(late.next_seq()))
    assert last(late) == (late.seq, "PONG")
    assert job is not None
    world.finish(job)
    assert last(computing) == (computing.seq, "CHUNK")
    assert world.due() is None
    world.deliver(world.dispatcher.close("bye."))
    assert [last(robot) for robot in world.robots.values()] == [(0, "BYE")] * 3


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens in whatever order: each message but BYE is answered exactly once, by the
    right kind, and nobody is made late by a batch."""

    ROBOTS = st.integers(0, 3)

    @initialize()
    def begin(self) -> None:
        self.world = World.of(PlannedEcho(), robots=4)
        self.jobs: list[Job] = []
        self.world.open()
        self.expected: dict[bytes, list[int]] = {p: [1] for p in self.world.robots}

    def robot(self, number: int) -> Robot:
        return list(self.world.robots.values())[number]

    @rule(
        which=ROBOTS,
        budget_ms=st.sampled_from([0, 2, 6, 20, 30, 100]),
        loops=st.sampled_from([0, 0, 1, 2, 3]),
        steps=st.sampled_from([0, 0, 4, 99]),
    )
    def observe(self, which: int, budget_ms: int, loops: int, steps: int) -> None:
        robot = self.robot(which)
        seq = self.world.observe(robot, budget_ms, loops=loops, steps=steps)
        self.expected[robot.peer].append(seq)

    @rule(which=ROBOTS)
    def reset(self, which: int) -> None:
        robot = self.robot(which)
        seq = robot.next_seq()
        self.expected[robot.peer].append(seq)
        (*_, reply) = self.world.say(robot, Reset(seq, robot.epoch + 1))
        if not isinstance(reply.message, Error):
            robot.epoch += 1

    @rule(which=ROBOTS)
    def hello(self, which: int) -> None:
        robot = self.robot(which)
        seq = robot.next_seq()
        self.expected[robot.peer].append(seq)
        (*_, reply) = self.world.say(robot, Hello(seq, 1, 1, session=which + 1))
        assert isinstance(reply.message, (Welcome, Error))
        if isinstance(reply.message, Welcome):
            robot.epoch = reply.message.epoch

    @rule(which=ROBOTS)
    def leave(self, which: int) -> None:
        robot = self.robot(which)
        self.world.say(robot, Bye(robot.next_seq()))

    @rule(seconds=st.sampled_from([0.001, 0.01, 0.2]))
    def wait(self, seconds: float) -> None:
        self.world.clock.now += seconds

    @rule()
    def compute(self) -> None:
        if len(self.jobs) == 2:
            return
        dispatcher = self.world.dispatcher
        self.world.deliver(dispatcher.expire())
        planner = dispatcher.offer.planner
        waiting = dispatcher.waiting
        now = self.world.clock.now
        job = dispatcher.next_job()
        if job is None:
            return
        self.jobs.append(job)
        out = [(r.session, r.obs.epoch) for out in self.jobs for r in out.requests]
        assert len(set(out)) == len(out)
        ends_s = now + planner.relied_s(job.rung, len(job.requests))
        if len(job.requests) > 1:
            assert all(ends_s <= request.deadline_s for request in job.requests)
            left = [r for r in waiting if r not in job.requests]
            assert all(ends_s <= r.deadline_s - least_s(r, planner) for r in left)
        for request in job.requests:
            assert request.obs.loops in (0, job.rung.loops)
            assert request.obs.steps in (0, job.rung.steps)

    @rule(
        which=st.integers(0, 1),
        how=st.sampled_from(["chunk", "chunk", "raised", "lost", "nan"]),
        took_ms=st.sampled_from([1, 20, 400]),
    )
    def finish(self, which: int, how: str, took_ms: int) -> None:
        if which >= len(self.jobs):
            return
        job = self.jobs.pop(which)
        nan = Inference(np.full((HORIZON, 3), np.nan, np.float32), 1, 1, 0, 0)
        outcome = {"raised": InferenceFailed("no"), "lost": ReplicaLost("gone"), "nan": nan}
        outcomes = [outcome[how]] * len(job.requests) if how in outcome else computed(job)
        self.world.finish(job, *outcomes, took_ms=took_ms)

    @rule(model=st.sampled_from([PlannedEcho, EchoPolicy]))
    def replace(self, model: type[EchoPolicy]) -> None:
        self.world.deliver(self.world.dispatcher.replace(offer_of(model())))

    @rule()
    def drain(self) -> None:
        if self.world.clock.now > 100.5:  # not always at once
            self.world.deliver(self.world.dispatcher.drain("closing."))

    @invariant()
    def no_answer_comes_twice_or_unasked(self) -> None:
        for peer, robot in self.world.robots.items():
            answered = Counter(a.seq for a in robot.answers if not isinstance(a, Bye))
            assert answered <= Counter(self.expected[peer])

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        outstanding = list(self.jobs)
        self.world.deliver(self.world.dispatcher.close("the end."))
        for job in outstanding:
            assert self.world.finish(job) == []  # answered already
        for peer, robot in self.world.robots.items():
            answered = Counter(a.seq for a in robot.answers if not isinstance(a, Bye))
            assert answered == Counter(self.expected[peer])


AnyOrder.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnyOrder = AnyOrder.TestCase


def test_a_client_that_floods_gets_its_one_turn():
    world = World.of(EchoPolicy(), robots=3)
    flood, *others = world.open()
    served: list[bytes] = []
    for _ in range(30):
        for _ in range(5):
            world.observe(flood, budget_ms=1000)
        for robot in others:
            if not served or robot.peer == served[-1] or len(served) < 3:
                world.observe(robot)
        job = world.due()
        assert job is not None
        served.append(job.requests[0].peer)
        world.finish(job)
    assert Counter(served) == Counter({robot.peer: 10 for robot in (flood, *others)})
    assert all(a != b for a, b in pairwise(served))
    refused = [a for a in flood.answers if isinstance(a, Error)]
    assert {a.code for a in refused} == {ErrorCode.SUPERSEDED}


def test_silent_connections_are_probed_so_that_those_that_are_gone_show():
    world = World.of(EchoPolicy(), robots=2)
    gone, alive = world.open()
    world.clock.now += 11
    world.observe(alive)
    (reply,) = world.dispatcher.probe()
    assert reply.peer == gone.peer
    assert (type(reply.message).__name__, reply.message.seq) == ("Pong", 0)
    world.dispatcher.lost(gone.peer)
    assert world.dispatcher.sessions == 1
