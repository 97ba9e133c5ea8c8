"""The controller on a line of joints, with observations and chunks as late as a test likes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopdit.datasets.spec import COMMITTED, PolicySpec
from loopdit.datasets.tensor_spec import TensorSpec
from loopdit.deploy.robot.control.controller import Acted, ChunkRequest, Controller
from loopdit.deploy.robot.control.seen_history import Seen, SeenHistory
from loopdit.deploy.robot.executions import make_execution
from loopdit.deploy.robot.guide import GUIDE
from loopdit.deploy.robot.safety.config import SafetyConfig, limits_for
from loopdit.deploy.robot.safety.safety_filter import EMERGENCY_STOP, WATCHDOG, SafetyFilter

PERIOD_S, HORIZON, GOAL_M, LIMIT_M = 0.1, 8, 1.0, 0.1
SPEC = PolicySpec(
    observations=(TensorSpec("proprio", (1,), "float32", ("x",), ("m",)),),
    action=TensorSpec("action", (1,), "float32", ("dx",), ("m",), (-LIMIT_M,), (LIMIT_M,)),
    action_frame="base",
    control_period_s=PERIOD_S,
)


def controller(
    execution: str = "tracked", parts: int = 1, spec: PolicySpec = SPEC, **safety: object
) -> Controller:
    limits = limits_for(SafetyConfig(**safety), SPEC.action, PERIOD_S / parts)  # pyright: ignore[reportArgumentType] - by name
    made = make_execution(execution, 4 * parts, SPEC.action, spec.max_committed)
    return Controller(made, SafetyFilter(limits), spec, parts)


def seen(at: float, step: int, episode: int = 0) -> Seen:
    return Seen({"proprio": np.array([at], np.float32)}, step, "go", episode)


def chunk(request: ChunkRequest) -> np.ndarray:
    """(H, 1): from where it was seen to the goal, half of the limit a step."""
    at = float(request.seen[-1]["proprio"][0])
    path = np.minimum(at + 0.5 * LIMIT_M * np.arange(HORIZON + 1), GOAL_M)
    return np.diff(path).astype(np.float32)[:, None]


def acted(robot: Controller) -> Acted:
    done = robot.act()
    assert done is not None
    return done


def begun(**options: object) -> Controller:
    """One that has got its first chunk."""
    robot = controller(**options)  # pyright: ignore[reportArgumentType] - by name
    robot.observe(seen(0.0, 0))
    request = robot.request()
    assert request is not None
    robot.answer(request, chunk(request))
    return robot


@given(
    parts=st.integers(1, 5),
    age=st.integers(0, 6),
    delays=st.lists(st.integers(0, 9), min_size=1, max_size=5),
)
@settings(max_examples=30)
def test_a_robot_comes_to_its_goal_however_old_observations_and_late_chunks_are(
    parts: int, age: int, delays: list[int]
):
    robot = controller(parts=parts)
    places, waiting = [0.0], list[tuple[ChunkRequest, int]]()
    asked = 0
    for tick in range(150 * parts):
        step = max(0, robot.step - age)
        robot.observe(seen(places[step], step))
        for request, due in waiting:
            if due <= tick:
                robot.answer(request, chunk(request))
        waiting = [(request, due) for request, due in waiting if due > tick]
        request = robot.request()
        if request is not None:
            waiting.append((request, tick + delays[asked % len(delays)]))
            asked += 1
        done = robot.act()
        if done is not None:
            assert done.source in ("policy", "hold")
            places.append(places[-1] + float(done.action[0]))
    assert places[-1] == pytest.approx(GOAL_M, abs=1e-4)
    assert max(places) <= GOAL_M + 1e-4


def test_no_step_passes_before_the_first_chunk_and_none_of_its_actions_is_skipped():
    robot = controller()
    robot.observe(seen(0.0, 0))
    request = robot.request()
    assert request is not None
    assert [robot.act() for _ in range(50)] == [None] * 50  # a cold start
    assert robot.step == 0
    robot.answer(request, np.arange(1, 9, dtype=np.float32)[:, None] / 100)
    found = [float(acted(robot).action[0]) for _ in range(3)]
    np.testing.assert_allclose(found, [0.01, 0.02, 0.03], atol=1e-6)


def test_one_request_is_under_way_at_a_time_and_none_for_an_observation_that_was_asked_about():
    robot = controller()
    robot.observe(seen(0.0, 0))
    request = robot.request()
    assert request is not None
    robot.observe(seen(0.0, 0))
    assert robot.request() is None
    robot.answer(request, None)  # the policy failed
    assert robot.request() is None
    robot.observe(seen(0.0, 1))
    assert robot.request() is not None


def test_what_was_asked_before_a_reset_is_never_played():
    robot = controller()
    robot.observe(seen(0.0, 0))
    stale = robot.request()
    assert stale is not None
    robot.reset()
    robot.answer(stale, np.full((HORIZON, 1), 0.07, np.float32))
    assert robot.act() is None
    robot.observe(seen(0.0, 0))
    fresh = robot.request()
    assert fresh is not None
    robot.answer(fresh, np.full((HORIZON, 1), 0.02, np.float32))
    assert acted(robot).action[0] == pytest.approx(0.02)


def test_another_episode_begins_anew_and_does_not_lift_a_stop():
    robot = begun()
    acted(robot)
    robot.observe(seen(0.0, 1, episode=1))
    held = acted(robot)
    assert (held.source, held.action[0]) == ("hold", 0)
    request = robot.request()
    assert request is not None
    assert request.epoch == 1
    robot.safety.press("test")
    robot.observe(seen(0.0, 2, episode=2))
    assert acted(robot).source == EMERGENCY_STOP


def test_a_policy_that_stops_answering_is_held_and_then_latched_until_a_reset():
    robot = begun(watchdog_periods=3)
    sources = [acted(robot).source for _ in range(HORIZON + 4)]
    assert sources == ["policy"] * HORIZON + ["hold"] * 2 + [WATCHDOG] * 2
    robot.observe(seen(0.4, robot.step))
    assert robot.request() is None
    robot.reset()
    assert acted(robot).source == "hold"
    robot.observe(seen(0.4, robot.step))
    request = robot.request()
    assert request is not None
    robot.answer(request, chunk(request))
    assert acted(robot).source == "policy"


def test_a_guide_begins_at_the_observation_with_what_was_done_since_in_front():
    robot = begun(execution="guided", parts=2)
    for _ in range(8):
        acted(robot)
    robot.observe(seen(0.15, 6))  # two steps old
    request = robot.request()
    assert request is not None
    guide = request.observation[GUIDE]
    np.testing.assert_allclose(guide[:, 0], [0.05] * 5, atol=1e-6)  # in the policy's periods
    assert guide[0, 1] == 1
    assert (np.diff(guide[1:, 1]) < 0).all()


def test_a_policy_is_told_what_is_in_flight_when_it_sees_the_present():
    spec = SPEC.with_committed(4)
    robot = controller("informed", spec=spec)
    robot.observe(seen(0.0, 0))
    first = robot.request()
    assert first is not None
    assert not first.observation[COMMITTED].any()
    robot.answer(first, chunk(first))
    for _ in range(5):
        acted(robot)
    robot.observe(seen(0.2, 4))
    assert robot.request() is None
    robot.observe(seen(0.25, 5))
    assert robot.request() is not None


def test_a_policy_with_more_than_it_can_be_told_is_refused():
    with pytest.raises(ValueError, match="own rate alone"):
        controller("informed", parts=2, spec=SPEC.with_committed(4))


def places(request: ChunkRequest | None) -> list[float]:
    assert request is not None
    return request.observation["proprio"][:, 0].tolist()


def test_a_policy_with_history_is_given_what_was_seen_a_period_of_its_own_apart():
    robot = controller(parts=2, spec=SPEC.with_history(3))
    robot.observe(seen(0.0, 0))
    first = robot.request()
    assert places(first) == [0, 0, 0]  # as in training, the first one is repeated
    assert first is not None
    robot.answer(first, np.full((HORIZON, 1), 0.02, np.float32))
    for step in range(1, 14):
        acted(robot)
        robot.observe(seen(float(step), step))
    assert places(robot.request()) == [9, 11, 13]


def test_after_a_stop_and_in_another_episode_nothing_of_before_is_given():
    for again in ("reset", "episode"):
        robot = begun(spec=SPEC.with_history(2))
        for step in range(1, 6):
            acted(robot)
            robot.observe(seen(float(step), step))
        if again == "reset":
            robot.reset()
        else:
            robot.observe(seen(5.0, 5, episode=1))
        assert places(robot.request()) == [5, 5]


@given(
    count=st.integers(1, 4),
    parts=st.integers(1, 3),
    steps=st.lists(st.integers(0, 3), min_size=1, max_size=30),
)
def test_each_of_a_history_is_the_last_that_was_seen_by_then(
    count: int, parts: int, steps: list[int]
):
    history, all_seen = SeenHistory(count, parts), list[tuple[int, float]]()
    for number, step in enumerate(np.cumsum(steps).tolist()):
        history.add(seen(float(number), step))
        all_seen.append((step, float(number)))
        found = [float(row["proprio"][0]) for row in history.rows()]
        expected: list[float] = []
        for back in reversed(range(count)):
            by_then = [at for when, at in all_seen if when <= step - back * parts]
            first = [at for when, at in all_seen if when == all_seen[0][0]][-1]
            expected.append(by_then[-1] if by_then else first)
        assert found == expected
