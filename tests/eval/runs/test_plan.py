from dataclasses import replace

from loopdit.eval.rollouts.condition import Condition
from loopdit.eval.runs.plan import Job, Plan, combinations, controls_of

PLAN = Plan(
    policy={"kind": "bundle", "model_id": "a"},
    environment={"env": "lift"},
    versions={"loopdit": "0"},
    conditions=(Condition(1, 10), Condition(2, 10)),
    controls=(("zeros", Condition(0, 0)),),
    first_seed=900_000,
    episodes=2,
)


def test_all_conditions_and_then_the_controls_take_turns_on_each_seed():
    one, two = PLAN.conditions
    assert list(PLAN.jobs()) == [
        Job("", one, 900_000),
        Job("", two, 900_000),
        Job("zeros", Condition(0, 0), 900_000),
        Job("", one, 900_001),
        Job("", two, 900_001),
        Job("zeros", Condition(0, 0), 900_001),
    ]
    assert PLAN.total == 6


def test_whatever_could_change_an_outcome_changes_the_digest():
    others = [
        replace(PLAN, policy={"kind": "bundle", "model_id": "b"}),
        replace(PLAN, environment={"env": "push"}),
        replace(PLAN, versions={"loopdit": "1"}),
        replace(PLAN, conditions=PLAN.conditions[:1]),
        replace(PLAN, conditions=PLAN.conditions[::-1]),
        replace(PLAN, controls=()),
        replace(PLAN, first_seed=900_001),
        replace(PLAN, episodes=3),
        replace(PLAN, sequential=True),
    ]
    assert len({PLAN.digest, *(other.digest for other in others)}) == 1 + len(others)
    assert replace(PLAN).digest == PLAN.digest


def test_combinations_vary_the_last_axis_fastest_and_begin_with_every_first_value():
    found = combinations({"delay": ["0", "2"], "steps": [10], "loops": [4, 1]})
    assert [(c.delay, c.loops) for c in found] == [("0", 4), ("0", 1), ("2", 4), ("2", 1)]


def test_the_expert_alone_is_driven_under_each_delay_and_no_control_twice():
    conditions = combinations(
        {
            "rate_hz": [0.0, 20.0],
            "fault": ["none", "frozen"],
            "execution": ["aligned", "naive"],
            "delay": ["0", "3", "wall"],
            "steps": [10],
            "loops": [1, 2],
        }
    )
    found = controls_of(conditions, ["zeros", "expert"])
    assert [(name, c.rate_hz, c.delay, c.execution) for name, c in found] == [
        ("zeros", 0.0, "0", "aligned"),
        ("zeros", 20.0, "0", "aligned"),
        ("expert", 0.0, "0", "aligned"),
        ("expert", 0.0, "3", "naive"),
        ("expert", 20.0, "0", "aligned"),
        ("expert", 20.0, "3", "naive"),
    ]
    assert {(c.loops, c.steps, c.fault) for _, c in found} == {(0, 0, "none")}
