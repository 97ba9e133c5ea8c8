"""Slots, turns, epochs and budgets, with time as a number and no socket."""

import math
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopdit.deploy.messages import ErrorCode, Obs, WireError
from loopdit.deploy.serving.sessions import Refusal, Request, Sessions


@dataclass
class Robot:
    """One client's side of the table: its connection, epoch and seq."""

    sessions: Sessions
    name: bytes
    epoch: int = 0
    seq: int = 0
    answers: dict[int, str] = field(default_factory=dict[int, str])

    def open(self, now: float = 0.0) -> list[Refusal]:
        self.epoch, refusals = self.sessions.open(self.name, hash(self.name), now)
        return refusals

    def send(self, now: float = 0.0, budget_us: int = 0, seed: int = 0) -> list[Refusal]:
        self.seq += 1
        obs = Obs(seq=self.seq, epoch=self.epoch, budget_us=budget_us, seed=seed)
        self.sessions.admit(self.name, obs, now)
        return self.sessions.submit(self.name, obs, {}, now, now)


def take(sessions: Sessions) -> Request | None:
    """The one whose turn it is."""
    order = sessions.in_order()
    if not order:
        return None
    sessions.take(order[:1])
    return order[0]


def at_once(_: Request) -> float:
    """Computed in no time."""
    return 0.0


def robots(count: int) -> tuple[Sessions, list[Robot]]:
    sessions = Sessions()
    made = [Robot(sessions, f"robot {i}".encode()) for i in range(count)]
    for robot in made:
        robot.open()
    return sessions, made


def codes(refusals: list[Refusal]) -> list[tuple[bytes, int, str]]:
    return [(r.peer, r.seq, r.code) for r in refusals]


def test_a_newer_observation_replaces_the_waiting_one():
    sessions, (robot,) = robots(1)
    assert robot.send() == []
    assert codes(robot.send()) == [(b"robot 0", 1, ErrorCode.SUPERSEDED)]
    taken = take(sessions)
    assert taken is not None
    assert taken.obs.seq == 2
    assert take(sessions) is None


def test_an_observation_in_compute_is_not_replaced():
    sessions, (robot,) = robots(1)
    robot.send()
    taken = take(sessions)
    assert robot.send() == []
    assert taken is not None
    assert sessions.finished(taken) is None


def test_sessions_take_turns_however_often_one_of_them_sends():
    sessions, crew = robots(3)
    greedy = crew[0]
    for robot in crew:
        robot.send()
    served: list[bytes] = []
    for _ in range(12):
        taken = take(sessions)
        assert taken is not None
        served.append(taken.peer)
        for robot in crew:
            if robot is greedy or robot.name == taken.peer:
                robot.send()
    assert served == [b"robot 0", b"robot 1", b"robot 2"] * 4


def test_a_request_whose_budget_is_gone_is_late_and_the_others_stay():
    sessions, (hasty, calm) = robots(2)
    hasty.send(now=10.0, budget_us=20_000)
    calm.send(now=10.0)
    assert sessions.next_expiry_s(at_once) == pytest.approx(10.02)
    assert sessions.expire(10.019, at_once) == []
    assert codes(sessions.expire(10.02, at_once)) == [(b"robot 0", 1, ErrorCode.LATE)]
    assert math.isinf(sessions.next_expiry_s(at_once))
    taken = take(sessions)
    assert taken is not None
    assert taken.peer == b"robot 1"


def test_a_request_is_late_as_soon_as_its_chunk_cannot_be_there_any_more():
    sessions, (robot,) = robots(1)
    robot.send(now=10.0, budget_us=20_000)
    assert sessions.next_expiry_s(lambda _: 0.015) == pytest.approx(10.005)
    assert sessions.expire(10.004, lambda _: 0.015) == []
    (refusal,) = sessions.expire(10.006, lambda _: 0.015)
    assert refusal.message == (
        "its budget of 20.0 ms does not suffice: it waited 6.0 ms, and its chunk takes 15.0 ms."
    )


def test_the_earliest_deadline_goes_first_and_without_one_last():
    sessions, crew = robots(3)
    for robot, budget_us in zip(crew, (0, 50_000, 20_000), strict=True):
        robot.send(budget_us=budget_us)
    assert [r.peer for r in sessions.in_order()] == [b"robot 2", b"robot 1", b"robot 0"]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0, 1000, 90_000])), max_size=200),
)
def test_nobody_who_waits_is_passed_over_by_another_more_than_twice(plan: list[tuple[int, int]]):
    """Whatever deadlines they have: in the round that the other still had to be served in, and in
    the next, where its deadline may be the earlier one."""
    sessions, crew = robots(4)
    served_since: dict[bytes, list[bytes]] = {}  # who waits, and who was served meanwhile
    for now, (which, budget_us) in enumerate(plan):
        crew[which].send(now=now, budget_us=budget_us)
        served_since.setdefault(crew[which].name, [])
        if now % 2:
            taken = take(sessions)
            assert taken is not None
            del served_since[taken.peer]
            for others in served_since.values():
                others.append(taken.peer)
                assert others.count(taken.peer) <= 2


def test_what_was_lost_waits_again_where_it_was_unless_a_newer_one_waits():
    sessions, (first, second) = robots(2)
    first.send()
    second.send()
    lost = take(sessions)
    assert lost is not None
    assert sessions.give_back(lost) == []
    again = take(sessions)
    assert again is not None
    assert (again.peer, again.lost) == (b"robot 0", 1)
    first.send()
    assert codes(sessions.give_back(again)) == [(b"robot 0", 1, ErrorCode.SUPERSEDED)]


def test_what_was_lost_is_not_computed_again_after_a_reset():
    sessions, (robot,) = robots(1)
    robot.send()
    lost = take(sessions)
    sessions.reset(robot.name, 2, 0, 0.0)
    assert lost is not None
    assert codes(sessions.give_back(lost)) == [(b"robot 0", 1, ErrorCode.STALE_EPOCH)]


def test_a_reset_refuses_what_waits_and_what_is_computed_and_what_still_arrives():
    sessions, (robot,) = robots(1)
    robot.send()
    computing = take(sessions)
    robot.send()
    assert codes(sessions.reset(b"robot 0", 2, 0, 0.0)) == [(b"robot 0", 2, ErrorCode.STALE_EPOCH)]
    assert computing is not None
    refusal = sessions.finished(computing)
    assert refusal is not None
    assert (refusal.seq, refusal.code) == (1, ErrorCode.STALE_EPOCH)
    with pytest.raises(WireError, match="observation of epoch 1; the session is in epoch 2") as e:
        robot.send()
    assert (e.value.code, e.value.seq) == (ErrorCode.STALE_EPOCH, 3)


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_reset_must_go_forward(epoch: int):
    sessions, _ = robots(1)
    with pytest.raises(WireError, match="the session is in epoch 1") as e:
        sessions.reset(b"robot 0", epoch, 0, 0.0)
    assert e.value.code == ErrorCode.STALE_EPOCH


def test_a_session_resumed_on_a_new_connection_is_in_its_next_epoch():
    sessions, (robot,) = robots(1)
    robot.send()
    computing = take(sessions)
    robot.send()
    epoch, refusals = sessions.open(b"same robot, new connection", hash(b"robot 0"), 1.0)
    assert epoch == 2
    assert codes(refusals) == [(b"robot 0", 2, ErrorCode.STALE_EPOCH)]
    assert len(sessions) == 1
    assert computing is not None
    assert sessions.finished(computing) is not None
    with pytest.raises(WireError) as e:
        robot.send()
    assert e.value.code == ErrorCode.NO_SESSION


def test_a_seq_is_accepted_once():
    sessions, (robot,) = robots(1)
    robot.send()
    robot.seq = 0
    with pytest.raises(WireError, match="seq 1 does not follow 1") as e:
        robot.send()
    assert (e.value.code, e.value.seq) == (ErrorCode.REPLAYED, 0)
    assert sessions.waiting == 1


def test_a_full_table_refuses_newcomers_until_a_session_has_been_idle():
    sessions = Sessions(max_sessions=2, idle_s=30.0)
    sessions.open(b"a", 1, 0.0)
    sessions.open(b"b", 2, 20.0)
    with pytest.raises(WireError, match="2 sessions are in use") as e:
        sessions.open(b"c", 3, 29.0)
    assert e.value.code == ErrorCode.OVERLOAD
    sessions.open(b"c", 3, 30.0)
    assert sorted(sessions.peers) == [b"b", b"c"]


def test_the_seed_of_a_reset_tells_equal_request_seeds_apart():
    sessions, (robot,) = robots(1)

    def noise_seed(seed: int) -> int:
        robot.send(seed=seed)
        taken = take(sessions)
        assert taken is not None
        return taken.noise_seed

    assert [noise_seed(s) for s in (0, 5)] == [0, 5]  # without a reset: the request's own
    seen: set[int] = set()
    for episode in range(1, 4):
        sessions.reset(b"robot 0", episode + 1, episode, 0.0)
        robot.epoch = episode + 1
        seen |= {noise_seed(s) for s in range(4)}
    assert len(seen) == 12


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["send", "take", "finish", "lose", "reset", "expire", "reopen", "drop"]
            ),
            st.integers(0, 2),
            st.integers(0, 3),
        ),
        max_size=60,
    )
)
def test_every_admitted_request_has_exactly_one_outcome(plan: list[tuple[str, int, int]]):
    """Whatever happens in whatever order: computed or refused, never both, never neither."""
    sessions, crew = robots(3)
    outcomes: list[tuple[bytes, int]] = []
    sent: list[tuple[bytes, int]] = []
    computing = None
    for now, (what, which, amount) in enumerate(plan):
        robot, refusals = crew[which], list[Refusal]()
        if what == "send":
            with suppress(WireError):  # NO_SESSION after a drop
                refusals = robot.send(now, budget_us=amount * 1_000_000)
                sent.append((robot.name, robot.seq))
        elif what == "take" and computing is None:
            computing = take(sessions)
        elif what == "finish" and computing is not None:
            refusal = sessions.finished(computing)
            refusals = [refusal] if refusal else []
            if refusal is None:
                outcomes.append((computing.peer, computing.obs.seq))
            computing = None
        elif what == "lose" and computing is not None:
            refusals = sessions.give_back(computing)
            computing = None
        elif what == "reset":
            with suppress(WireError):
                refusals = sessions.reset(robot.name, robot.epoch + 1, 0, now)
                robot.epoch += 1
        elif what == "expire":
            refusals = sessions.expire(now, at_once)
        elif what == "reopen":
            refusals = robot.open(now)
        elif what == "drop":
            refusals = sessions.drop(robot.name, ErrorCode.CLOSING, "left")
        outcomes += [(r.peer, r.seq) for r in refusals]
    if computing is not None:
        outcomes.append((computing.peer, computing.obs.seq))
    for peer in sessions.peers:
        outcomes += [(r.peer, r.seq) for r in sessions.drop(peer, ErrorCode.CLOSING, "end")]
    assert sorted(outcomes) == sorted(sent)
