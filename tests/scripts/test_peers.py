"""The comparison with peers: what the page says of a record, and what counts as done."""

import json
import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.policy.policies import small_store

import loopdit
from loopdit.errors import ConfigError

Page = Callable[[dict[str, Any]], str]
PEERS = Path(loopdit.__file__).parents[2] / "scripts" / "peers"
STANDINGS: dict[str, Any] = runpy.run_path(str(PEERS / "standings.py"))
KEY, LEAD, SUCCESS = STANDINGS["Key"], STANDINGS["lead"], STANDINGS["success"]
DIAL = STANDINGS["dial"]

ABOUT = {
    "machine": {"cpu": "x", "cores": 2, "memory_gib": 4, "load_average": 0.0, "os": "y"},
    "versions": {"python": "3.11"},
    "commit": "0123456789abcdef-dirty",
    "lerobot": None,
}


def run(arm: str, seed: int, task: str = "lift", **outcomes: str) -> dict[str, Any]:
    """`outcomes` by condition, as k4 or steps10."""
    results: list[dict[str, Any]] = []
    for name, letters in outcomes.items():
        by_loops = name.startswith("k")
        number = int(name.lstrip("kstep"))
        loops, steps = (number, 0) if by_loops else (1, number)
        results.append({"loops": loops, "steps": steps, "outcomes": letters})
    return {
        "arm": arm,
        "task": task,
        "seed": seed,
        "parameters": {"all": 1234},
        "minutes": 60.0,
        "samples_per_s": {"q25": 90.0, "median": 100.0, "q75": 110.0},
        "validation": {"loss": {"1": 0.5, "2": 0.25}},
        "held_out": {"errors": [{"loops": 4, "steps": 0, "error": 0.125}]},
        "results": results,
        "machine": ABOUT["machine"],
        "commit": ABOUT["commit"],
    }


def record(runs: list[dict[str, Any]], ms: dict[tuple[str, int, int], float]) -> dict[str, Any]:
    arms = dict.fromkeys(run["arm"] for run in runs)
    rows = [
        {"backend": "torch", "name": name, "loops": k, "steps": steps, "p50_ms": p50}
        for (name, k, steps), p50 in ms.items()
    ]
    return {
        "about": ABOUT,
        "study": {
            "tasks": ["lift"],
            "seeds": [0, 1],
            "steps": 10,
            "episodes": 100,
            "data": {"lift": {"digest": "0f" * 8, "episodes": 3000}},
        },
        "ours": ["ship", "wide"],
        "arms": [
            {
                "name": name,
                "title": name,
                "options": [],
                "lerobot": name == "lerobot",
                "alone": int(name.removeprefix("alone-")) if name.startswith("alone-") else 0,
            }
            for name in arms
        ],
        "runs": runs,
        "latency": {"repetitions": 3, "rows": rows, **ABOUT} if rows else None,
    }


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Page:
    monkeypatch.syspath_prepend(str(PEERS))
    return runpy.run_path(str(PEERS / "page.py"))["page"]


GOOD, BAD = "S" * 90 + "F" * 10, "S" * 50 + "F" * 50


def test_success_is_pooled_over_the_training_seeds_and_no_other_letter_counts():
    runs = [
        run("ship", 0, k4="SSFU"),
        run("ship", 1, k4="SEEE"),
        run("ship", 0, "stack", k4="SSSS"),
    ]
    found = SUCCESS(record(runs, {}), KEY("ship", 4, 0), "lift")
    assert (found.successes, len(found.outcomes)) == (3, 8)
    assert found.by_seed == [(2, 4), (1, 4)]
    assert SUCCESS(record(runs, {}), KEY("ship", 3, 0), "lift") is None


def test_ours_is_ahead_on_success_where_a_depth_that_is_not_slower_succeeds_more_often():
    runs = [run("ship", 0, k1=BAD, k4=GOOD), run("dense", 0, k4=BAD)]
    ms = {("ship", 1, 0): 4.0, ("ship", 4, 0): 10.0, ("dense", 4, 0): 20.0}
    found = LEAD(record(runs, ms), KEY("dense", 4, 0), "lift")
    loops, gap = found.at_equal_latency
    assert (loops, round(gap.here.value, 3)) == (4, 0.4)
    assert found.verdict == "ahead on success"


def test_a_depth_of_ours_that_is_slower_than_the_peer_does_not_count_at_equal_latency():
    runs = [run("ship", 0, k1=BAD, k4=GOOD), run("depth", 0, k1=GOOD)]
    ms = {("ship", 1, 0): 4.0, ("ship", 4, 0): 12.0, ("depth", 1, 0): 8.0}
    found = LEAD(record(runs, ms), KEY("depth", 1, 0), "lift")
    assert found.at_equal_latency[0] == 1
    assert found.at_equal_success == (4, 1.5)
    assert found.verdict == "behind on latency"


def test_at_equal_success_the_fastest_depth_counts():
    runs = [run("ship", 0, k1=GOOD, k4=GOOD), run("dense", 0, k4=GOOD)]
    ms = {("ship", 1, 0): 5.0, ("ship", 4, 0): 10.0, ("dense", 4, 0): 20.0}
    found = LEAD(record(runs, ms), KEY("dense", 4, 0), "lift")
    assert found.at_equal_success == (1, 0.25)
    assert found.verdict == "ahead on latency"


def test_ours_is_compared_at_the_latency_of_each_clock_that_both_have(page: Page):
    runs = [run("ship", 0, k1=BAD, k4=GOOD), run("depth", 0, k1=GOOD), run("dense", 0, k1=BAD)]
    found = record(runs, {("ship", 4, 0): 12.0, ("depth", 1, 0): 8.0, ("dense", 1, 0): 20.0})
    clock = found["latency"]["rows"]
    clock += [{**row, "backend": "fused"} for row in clock if row["name"] != "dense"]
    clock[-1]["p50_ms"] = 16.0
    peer = KEY("depth", 1, 0)
    assert LEAD(found, peer, "lift").at_equal_success == (4, 1.5)
    assert LEAD(found, peer, "lift", "fused").at_equal_success == (4, 0.75)
    assert LEAD(found, KEY("dense", 1, 0), "lift", "fused") is None
    by_torch, by_kernels = page(found).split("by the fused kernels, to which")
    assert "| ship | depth | 1 | lift | – | – | K = 4: 1.50 | behind on latency |" in by_torch  # noqa: RUF001
    assert "| ship | depth | 1 | lift | K = 4: +0.0 [+0.0, +0.0] | – | K = 4: 0.75 |" in by_kernels  # noqa: RUF001
    assert "| ship | dense |" not in by_kernels


def test_a_depth_counts_as_equally_good_only_where_five_points_fewer_are_excluded():
    almost = "S" * 87 + "F" * 13  # 3 points fewer of 100: it could well be 7
    runs = [run("ship", 0, k1=almost, k4=GOOD), run("dense", 0, k4=GOOD)]
    ms = {("ship", 1, 0): 5.0, ("ship", 4, 0): 10.0, ("dense", 4, 0): 20.0}
    found = LEAD(record(runs, ms), KEY("dense", 4, 0), "lift")
    assert found.at_equal_success == (4, 0.5)


def test_ours_is_behind_where_every_depth_succeeds_less_often():
    runs = [run("ship", 0, k1=BAD), run("dense", 0, k4=GOOD)]
    ms = {("ship", 1, 0): 5.0, ("dense", 4, 0): 20.0}
    found = LEAD(record(runs, ms), KEY("dense", 4, 0), "lift")
    assert (found.at_equal_success, found.verdict) == (None, "as good at no K")


def test_nothing_is_said_of_a_lead_before_latencies_are_measured(page: Page):
    runs = [run("ship", 0, k4=GOOD), run("dense", 0, k4=GOOD)]
    assert LEAD(record(runs, {}), KEY("dense", 4, 0), "lift") is None
    assert "Ours against each peer" not in page(record(runs, {}))


def test_the_page_has_each_seeds_successes_the_interval_and_the_commit(page: Page):
    runs = [
        *(run("ship", seed, k4=GOOD) for seed in (0, 1)),
        *(run("lerobot", seed, steps10=BAD) for seed in (0, 1)),
    ]
    text = page(record(runs, {("ship", 4, 0): 12.3, ("lerobot", 1, 10): 45.6}))
    assert "| ship | 4 | 180/200, 90 % [85, 93] (90, 90) | 0.125 0.125 | 12.3 |" in text
    assert "| lerobot | 10 denoising steps | 100/200, 50 % [43, 57] (50, 50) |" in text
    assert "| ship | lift | 100 100 | 60 60 | 0.2500 0.2500 |" in text
    assert "commit 0123456789ab-dirty" in text
    assert "(lift: 3,000 episodes, digest 0f0f0f0f0f0f0f0f)" in text
    assert "policy-collect env=lift episodes=3000 out=outputs/demos/lift.zarr\n" in text


@pytest.fixture
def collect(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(str(PEERS))
    return runpy.run_path(str(PEERS / "collect.py"))


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content) + "\n")


def test_an_evaluation_counts_once_all_its_episodes_were_run_under_all_conditions(
    collect: dict[str, Any], tmp_path: Path
):
    arm = runpy.run_path(str(PEERS / "arms.py"))["ARMS"]["lerobot"]
    rows = [{"episodes": 200, "steps": 10}, {"episodes": 199, "steps": 100}]
    assert not collect["has_rollouts"](tmp_path, arm, 200)
    write(tmp_path / "eval" / "eval.json", {"results": rows})
    assert not collect["has_rollouts"](tmp_path, arm, 200)
    rows[1]["episodes"] = 200
    write(tmp_path / "eval" / "eval.json", {"results": rows})
    assert collect["has_rollouts"](tmp_path, arm, 200)


def test_a_training_is_at_the_step_of_its_checkpoint_whoever_made_it(
    collect: dict[str, Any], tmp_path: Path
):
    assert collect["step_of"](tmp_path / "none") == 0
    write(tmp_path / "a" / "checkpoint" / "checkpoint.json", {"provenance": {"step": 7}})
    write(tmp_path / "b" / "checkpoint" / "peer.json", {"step": 8})
    assert [collect["step_of"](tmp_path / name) for name in "ab"] == [7, 8]


def test_a_run_has_one_row_for_each_condition_of_its_arm_and_a_letter_for_each_seed(
    collect: dict[str, Any], tmp_path: Path
):
    arms = runpy.run_path(str(PEERS / "arms.py"))
    arm = arms["ARMS"]["lerobot"]
    study = arms["Study"](tasks=("lift",), seeds=(0,), steps=5, episodes=2, out=tmp_path)
    folder = study.folder(arm, "lift", 0)

    def row(steps: int, *outcomes: str) -> dict[str, Any]:
        counted = {"successes": outcomes.count("success"), "episodes": 2, "ci95": [0, 1]}
        rollouts = [{"outcome": outcome} for outcome in outcomes]
        return {"loops": 1, "steps": steps, **counted, "rollouts": rollouts}

    rows = [row(10, "failure", "success"), row(100, "success", "error")]
    write(folder / "eval" / "eval.json", {"results": rows, **ABOUT})
    write(
        folder / "checkpoint" / "peer.json", {"step": 5, "parameters": {"all": 3}, "versions": {}}
    )
    write(
        folder / "checkpoint" / "metrics.jsonl",
        {"step": 5, "elapsed_s": 120.0, "samples_per_s": 10.0, "validation": {"loss": {"1": 1.0}}},
    )
    found = collect["collected"](study, [arm], tmp_path / "none")
    (made,) = found["runs"]
    assert [(r["steps"], r["outcomes"]) for r in made["results"]] == [(100, "SE"), (10, "FS")]
    assert (made["minutes"], made["samples_per_s"]["median"]) == (2.0, 10.0)
    assert (made["parameters"], found["latency"]) == ({"all": 3}, None)


def test_sizes_of_two_studies_are_not_mixed_in_one_folder(tmp_path: Path):
    study = runpy.run_path(str(PEERS / "arms.py"))["Study"]
    study(steps=5, out=tmp_path).take_up()
    study(steps=5, out=tmp_path).take_up()
    with pytest.raises(ConfigError, match="Choose another --out"):
        study(steps=6, out=tmp_path).take_up()


def test_a_study_is_of_one_set_of_demonstrations(collect: dict[str, Any], tmp_path: Path):
    arms = runpy.run_path(str(PEERS / "arms.py"))
    arm = arms["ARMS"]["alone-4"]
    sizes: dict[str, Any] = {"tasks": ("lift", "stack"), "steps": 10, "episodes": 100}
    study = arms["Study"](**sizes, data=tmp_path / "demos", out=tmp_path / "out")
    store = small_store(study.store("lift"), episodes=3)
    study.take_up()
    study.take_up()
    earlier = record([run("alone-4", 0, task, k4=GOOD) for task in ("lift", "stack")], {})
    earlier["study"]["windows"] = study.windows
    earlier["arms"][0]["options"] = list(arm.options)
    path = tmp_path / "docs" / "peers.json"
    earlier["study"]["data"] = {
        "lift": {"digest": store.digest(), "episodes": 3},
        "stack": {"digest": "1e" * 8, "episodes": 4000},
    }
    write(path, earlier)
    found = collect["collected"](study, [arm], path)
    assert found["runs"] == earlier["runs"]
    assert found["study"]["data"] == earlier["study"]["data"]
    # Another store in its place: neither the folder nor the record is gone on from.
    small_store(study.store("stack"), episodes=4)
    assert set(collect["recorded"](study, [arm], path)) == {("alone-4", "lift", 0)}
    study.take_up()
    small_store(tmp_path / "other" / "lift.zarr", episodes=4)
    other = arms["Study"](**sizes, data=tmp_path / "other", out=tmp_path / "out")
    with pytest.raises(ConfigError, match=r"says that lift has .*'episodes': 3.*, not "):
        other.take_up()


def test_every_k_is_compared_with_a_training_for_that_k_alone(page: Page):
    runs = [run("ship", 0, k1=BAD, k4=GOOD), run("alone-1", 0, k1=GOOD), run("alone-4", 0, k4=GOOD)]
    found = DIAL(record(runs, {}), KEY("alone-1", 1, 0), "lift")
    assert found.here.value == pytest.approx(-0.4)
    assert found.here.high < 0
    assert found.beyond is None
    assert DIAL(record(runs, {}), KEY("alone-4", 4, 0), "lift").here.value == 0
    assert DIAL(record(runs, {}), KEY("alone-1", 1, 0), "stack") is None
    text = page(record(runs, {}))
    assert re.search(r"\| alone-1 \| 1 \| lift \| -40\.0 \[.*\] \| behind \| – \| – \|", text)  # noqa: RUF001
    assert "| alone-4 | 4 | lift | +0.0 [+0.0, +0.0] | the same |" in text


def test_what_depth_adds_is_that_of_the_same_weights(page: Page):
    runs = [run("ship", seed, k1=BAD, k4=GOOD) for seed in (0, 1)] + [
        run("lerobot", 0, steps10=BAD)
    ]
    (row,) = [line for line in page(record(runs, {})).splitlines() if "| ahead | [" in line]
    assert row.startswith("| ship | 4 | lift | +40.0 [")
    assert row.endswith("| ahead |")


def test_what_three_trainings_show_is_as_wide_as_they_differ():
    worse, same, better = "S" * 40 + "F" * 60, BAD, "S" * 80 + "F" * 20
    runs = [run("depth", seed, k1=same) for seed in (0, 1, 2)]
    runs += [run("ship", seed, k1=k1) for seed, k1 in enumerate((worse, same, better))]
    ms = {("ship", 1, 0): 5.0, ("depth", 1, 0): 5.0}
    found = LEAD(record(runs, ms), KEY("depth", 1, 0), "lift")
    _, gap = found.at_equal_latency
    # Differences of -10, 0 and 30 points: mean 6.667, standard error 12.02, t = 4.303 by 2 degrees.
    assert gap.here.low > 0
    assert gap.beyond.value == gap.here.value == pytest.approx(0.0667, abs=1e-4)
    assert (gap.beyond.low, gap.beyond.high) == pytest.approx((-0.4505, 0.5838), abs=1e-3)
    assert (found.verdict, found.verdict_beyond) == ("ahead on success", "not shown")


def test_trainings_that_end_alike_are_no_surer_than_their_test_seeds():
    runs = [
        run(arm, seed, k1=k1) for arm, k1 in (("depth", BAD), ("ship", GOOD)) for seed in (0, 1)
    ]
    found = LEAD(
        record(runs, {("ship", 1, 0): 5.0, ("depth", 1, 0): 5.0}), KEY("depth", 1, 0), "lift"
    )
    _, gap = found.at_equal_latency
    assert gap.beyond == gap.here
    assert found.verdict_beyond == "ahead on success"
    turned = [{**each, "arm": {"ship": "depth", "depth": "ship"}[each["arm"]]} for each in runs]
    found = LEAD(
        record(turned, {("ship", 1, 0): 5.0, ("depth", 1, 0): 5.0}), KEY("depth", 1, 0), "lift"
    )
    assert found.verdict_beyond == "as good at no K"


def test_a_study_goes_on_from_a_record_of_the_same_sizes_and_arms(
    collect: dict[str, Any], tmp_path: Path
):
    arms = runpy.run_path(str(PEERS / "arms.py"))
    arm, study = arms["ARMS"]["alone-4"], arms["Study"](steps=10, episodes=100, out=tmp_path)
    earlier = record([run("alone-4", 0, k4=GOOD)], {("alone-4", 4, 0): 1.5})
    earlier["study"]["windows"] = study.windows
    earlier["arms"][0]["options"] = list(arm.options)
    path = tmp_path / "docs" / "peers.json"
    write(path, earlier)
    assert set(collect["recorded"](study, [arm], path)) == {("alone-4", "lift", 0)}
    found = collect["collected"](study, [arm], path)
    assert found["runs"] == earlier["runs"]
    assert found["latency"] == earlier["latency"]
    for change in ({"steps": 9}, {"episodes": 99}):
        other = arms["Study"](**{"steps": 10, "episodes": 100, "out": tmp_path, **change})
        assert collect["recorded"](other, [arm], path) == {}
    earlier["arms"][0]["options"][0] = "policy.max_loops=5"  # trained otherwise than it would be
    write(path, earlier)
    assert collect["recorded"](study, [arm], path) == {}
