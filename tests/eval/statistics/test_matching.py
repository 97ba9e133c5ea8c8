from typing import Any

from tests.eval.paired_rows import older, paired_row

from loopdit.eval.statistics.matching import (
    Repeated,
    circumstances,
    match_rows,
    match_within,
    repeated,
    row_text,
    varying,
)

Row = dict[str, Any]


def controls(**changed: Any) -> list[Row]:
    return [
        paired_row("s", kind=kind, policy=kind, model_id=None, loops=None, steps=None, **changed)
        for kind in ("zeros", "expert")
    ]


def texts(pairs: list[tuple[Any, Any]]) -> list[tuple[str, str]]:
    return [(row_text(a, ("delay",)), row_text(b, ("delay",))) for a, b in pairs]


def test_rows_match_by_condition_and_controls_by_name():
    a = [paired_row("s", loops=k, label="old") for k in (1, 2, 3)] + controls()
    b = controls()[::-1] + [paired_row("s", loops=k, label="new") for k in (3, 2, 4)]
    found = match_rows(a, b)
    assert texts(found.pairs) == [
        ("old K=2, delay=0", "new K=2, delay=0"),
        ("old K=3, delay=0", "new K=3, delay=0"),
        ("zeros, delay=0", "zeros, delay=0"),
        ("expert, delay=0", "expert, delay=0"),
    ]
    assert [row["loops"] for row in found.unmatched_a] == [1]
    assert [row["loops"] for row in found.unmatched_b] == [4]


def test_each_delay_is_a_condition_of_its_own_where_both_files_tell_it():
    a = [paired_row("s", delay=delay) for delay in ("0", "2")]
    b = [paired_row("s", delay=delay) for delay in ("2", "5")]
    found = match_rows(a, b)
    assert texts(found.pairs) == [("served K=1, delay=2", "served K=1, delay=2")]
    assert len(match_rows([older(row) for row in a[:1]], b[:1]).pairs) == 1


def test_chosen_keys_compare_one_row_with_every_depth():
    expert = controls()[1]
    b = [paired_row("s", loops=k) for k in (1, 2)]
    assert match_rows([expert], b).pairs == []
    assert match_rows([expert], b, by=("env",)).pairs == [(expert, b[0]), (expert, b[1])]


def test_of_several_models_of_one_name_the_same_ones_match():
    a = [paired_row("s", model_id="x"), paired_row("s", model_id="y")]
    found = match_rows(a, a[::-1])
    assert found.pairs == [(a[0], a[0]), (a[1], a[1])]


def test_within_one_evaluation_the_first_row_of_each_environment_is_the_reference():
    lift = [paired_row("s", loops=k) for k in (1, 2, 3)]
    push, reach = paired_row("s", env="push"), paired_row("s", env="reach")
    found = match_within([lift[0], push, lift[1], paired_row("f", env="push"), lift[2], reach])
    assert [(a["env"], b["loops"]) for a, b in found.pairs] == [
        ("lift", 2),
        ("push", 1),
        ("lift", 3),
    ]
    assert found.unmatched_a == [reach]


def test_names_tell_the_conditions_that_vary_and_no_others():
    rows = [paired_row("s", delay="0"), paired_row("s", delay="2", loops=2)]
    assert varying(rows) == ("delay",)
    assert row_text(rows[1], varying(rows)) == "served K=2, delay=2"
    assert varying(rows[:1]) == ()


def test_a_repeated_run_counts_the_rollouts_that_differ():
    a, b = paired_row("sfsfs"), paired_row("sfsf", first_seed=900_000)
    assert repeated([(a, b)]) == Repeated(rollouts=4, differ=0, hashed=True)
    b["rollouts"][2]["state_sha256"] = "another"
    assert repeated([(a, b), (a, a)]) == Repeated(rollouts=9, differ=1, hashed=True)


def test_without_hashes_steps_and_outcomes_are_compared():
    a, b = older(paired_row("sfsf")), paired_row("sfff")
    b["rollouts"][0]["steps"] += 1
    assert repeated([(a, b)]) == Repeated(rollouts=4, differ=2, hashed=False)


def test_another_model_another_condition_or_the_wall_clock_is_no_repetition():
    a = paired_row("ss")
    others: list[dict[str, Any]] = [
        {"model_id": "x"},
        {"kind": "untrained"},
        {"loops": 2},
        {"delay": "3"},
    ]
    for changed in others:
        assert repeated([(a, paired_row("ff", **changed))]) is None
    wall = paired_row("ss", delay="wall")
    assert repeated([(wall, wall)]) is None


def test_what_two_runs_were_not_both_made_with_is_told():
    a: dict[str, Any] = {
        "machine": {"cpu": "x"},
        "versions": {"mujoco": "3.17.0"},
        "results": [paired_row("s", model_digest="1"), paired_row("s", env="push")],
    }
    assert circumstances(a, a) == []
    b = {**a, "results": [paired_row("s", model_digest="2"), paired_row("s", env="push")]}
    assert circumstances(a, b) == [
        "the simulated model of lift is not the same in A and B: a difference may be the task's "
        "and not the policy's."
    ]
    moved = {**a, "machine": {"cpu": "y"}, "versions": {"mujoco": "3.18.0"}}
    machine, simulator = circumstances(a, moved)
    assert machine.startswith("A ran on x, B on y")
    assert simulator.startswith("A ran in MuJoCo 3.17.0, B in MuJoCo 3.18.0")


def test_each_environment_has_its_own_simulator():
    def ran(**simulators: str) -> dict[str, Any]:
        return {
            "results": [
                paired_row("s", env=env, simulator=name) for env, name in simulators.items()
            ]
        }

    a = ran(lift="MuJoCo 3.17.0", hammer="Meta-World 3.1.1")
    assert circumstances(a, ran(hammer="Meta-World 3.1.1", reach="MuJoCo 3.18.0")) == []
    assert circumstances(a, ran(lift="MuJoCo 3.17.0", hammer="Meta-World 4")) == [
        "hammer: A ran in Meta-World 3.1.1, B in Meta-World 4: the same seed may be another "
        "episode."
    ]
