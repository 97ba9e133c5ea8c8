import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loopdit.deploy.bench.compare import (
    FASTER,
    MARGIN,
    NOT_SHOWN,
    SLOWER,
    compare,
    corrected_by_holm,
    read_older,
)
from loopdit.errors import ConfigError
from loopdit.eval.statistics.multiplicity import holm

MACHINE = {"cpu": "Abacus", "architecture": "beads", "cores": 2, "load_average": 0.1}


def results(
    seed: int,
    times_ms: dict[str, float],
    machine_factor: float = 1.0,
    rounds: int = 20,
    products: bool = True,
    scatter: float = 0.0,
    wander: float = 0.02,
) -> dict[str, Any]:
    """A bench.json with rows of each back end at K = 1, 2, 4, on a machine whose load wanders.

    wander: by how much, from one round to the next. scatter: by how much a run makes each row
    faster or slower by itself.
    """
    generator = np.random.default_rng(seed)
    load = machine_factor * np.exp(np.cumsum(generator.normal(0, wander, rounds)))
    products_ms = {k: load * k * generator.lognormal(0, 0.02, rounds) for k in (1, 2, 4)}
    rows: list[dict[str, Any]] = []
    for name, milliseconds in times_ms.items():
        for k in (1, 2, 4):
            row: dict[str, Any] = {"backend": name, "precision": "fp32", "threads": 1}
            row |= {"loops": k, "steps": 10, "batch": 1}
            own = milliseconds * k * load * generator.lognormal(0, 0.02, rounds)
            own *= generator.lognormal(0, scatter)
            row |= {"p50_ms": float(np.median(own)), "round_ms": own.tolist()}
            if products:
                row["round_products_ms"] = products_ms[k].tolist()
            rows.append(row)
    return {"rows": rows, "machine": MACHINE, "clock": "wall", "versions": {"torch": "2"}}


def verdicts(old: dict[str, Any], new: dict[str, Any]) -> dict[str, set[str]]:
    """Of each back end's rows."""
    found: dict[str, set[str]] = {}
    for change in compare(old, new, "old.json", seed=0)["changes"]:
        found.setdefault(change["backend"], set()).add(change["verdict"])
    return found


def test_the_same_program_shows_no_change_however_busy_the_machine_was():
    times = {"torch": 12.0, "onnxruntime": 3.0}
    for seed in range(5):
        old = results(seed, times, wander=0.1)
        new = results(1000 + seed, times, wander=0.1, machine_factor=3.0)
        assert verdicts(old, new) == {"torch": {NOT_SHOWN}, "onnxruntime": {NOT_SHOWN}}


def test_a_fifth_slower_or_faster_is_shown_for_the_back_end_that_changed_alone():
    old = results(1, {"a": 10.0, "b": 3.0, "c": 5.0})
    new = results(2, {"a": 12.0, "b": 3.0, "c": 4.0}, machine_factor=1.05)
    assert verdicts(old, new) == {"a": {SLOWER}, "b": {NOT_SHOWN}, "c": {FASTER}}


def test_a_change_of_one_back_end_is_not_blamed_on_another_that_is_measured_against_it():
    old = results(1, {"a": 10.0, "b": 3.0}, products=False)
    new = results(2, {"a": 30.0, "b": 3.0}, products=False)
    assert verdicts(old, new)["b"] == {NOT_SHOWN}


def test_what_everything_shares_is_said_but_is_nobodys_change():
    times = {"a": 10.0, "b": 3.0}
    found = compare(results(1, times), results(1, times, machine_factor=1.5), "old.json", seed=0)
    assert found["together"] == pytest.approx(1.5)
    assert {change["verdict"] for change in found["changes"]} == {NOT_SHOWN}
    assert {change["against"] for change in found["changes"]} == {1.0}


def test_a_change_below_the_margin_is_not_shown_however_certain():
    old = results(1, {"a": 10.0, "b": 3.0}, rounds=100)
    new = results(2, {"a": 10.0 * (1 + 0.6 * MARGIN), "b": 3.0}, rounds=100)
    changes = compare(old, new, "old.json", seed=0)["changes"]
    assert min(change["p"] for change in changes if change["backend"] == "a") < 0.05
    assert {change["verdict"] for change in changes} == {NOT_SHOWN}


def test_a_machine_that_scatters_its_rows_raises_the_margin():
    times = {"a": 10.0, "b": 3.0}
    calm = compare(results(1, times), results(2, times), "old.json", seed=0)
    scattered = compare(
        results(1, times, scatter=0.1), results(2, times, scatter=0.1), "old.json", seed=0
    )
    assert calm["margin"] == MARGIN
    assert scattered["margin"] > 0.15
    assert {change["verdict"] for change in scattered["changes"]} == {NOT_SHOWN}


def test_one_back_end_without_products_is_compared_as_it_is():
    old = results(1, {"a": 10.0}, products=False)
    new = results(1, {"a": 10.0}, machine_factor=2.0, products=False)
    for change in compare(old, new, "old.json", seed=0)["changes"]:
        assert change["ratio"] == change["against"] == pytest.approx(2.0)
        assert change["low"] <= 2.0 <= change["high"]


def test_what_only_one_run_has_and_what_else_differs_is_said():
    old = results(1, {"a": 10.0, "gone": 1.0})
    new = results(2, {"a": 10.0, "new": 1.0}) | {"versions": {"torch": "3"}}
    found = compare(old, new, "old.json", seed=0)
    assert {arm.partition(" ")[0] for arm in found["only_there"]} == {"backend=gone"}
    assert {arm.partition(" ")[0] for arm in found["only_here"]} == {"backend=new"}
    assert found["differs"] == ["torch: 2 there, 3 here"]


def test_the_correction_is_the_one_that_evaluations_use():
    generator = np.random.default_rng(0)
    for count in (0, 1, 2, 7):
        values = list(generator.uniform(0, 0.2, count))
        assert corrected_by_holm(values) == pytest.approx(holm(values))


@pytest.fixture
def older(tmp_path: Path) -> Path:
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(results(1, {"a": 10.0})))
    return path


def test_another_machine_is_refused_unless_said(older: Path):
    here = MACHINE | {"cpu": "Pascaline"}
    with pytest.raises(ConfigError, match=r"cpu Abacus there, Pascaline here.*other_machine=true"):
        read_older(str(older), here, "wall", other_machine=False)
    assert read_older(str(older), here, "wall", other_machine=True)["machine"] == MACHINE
    assert read_older(str(older), MACHINE | {"load_average": 9}, "wall", other_machine=False)


def test_another_clock_is_refused(older: Path):
    with pytest.raises(ConfigError, match="clock=wall, and this is clock=cpu"):
        read_older(str(older), MACHINE, "cpu", other_machine=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as a bench.json"),
        ("[]", "cannot be read as a bench.json"),
        (json.dumps(results(1, {"a": 1.0}, rounds=3)), "3 rounds"),
        (json.dumps({"rows": [{"p50_ms": 1}], "machine": MACHINE}), "0 rounds"),
    ],
)
def test_a_file_that_cannot_be_compared_with_is_refused(tmp_path: Path, content: str, message: str):
    path = tmp_path / "old.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_older(str(path), MACHINE, "wall", other_machine=False)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"gone\.json"):
        read_older(str(tmp_path / "gone.json"), MACHINE, "wall", other_machine=False)
