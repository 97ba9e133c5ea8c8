import pytest

from loopdit.deploy.bundle.bundle import Bundle, default_bundle
from loopdit.deploy.serving.planner import WINDOW, ChunkTime, Latency, Planner, Rung, ladder
from loopdit.deploy.serving.rung_latency import (
    Took,
    latency_of,
    recorded_latency,
    timed,
    with_batches,
)

RUNGS = ladder((1, 2), 4)
MACHINE = {"cpu": "Fast", "architecture": "x86_64", "cores": 8}
RUNS = {"backend": "fused", "precision": "fp32", "threads": 1}


def row(loops: int, steps: int, fastest: float, **more: float | None) -> dict[str, object]:
    parts = {"encode_min_ms": None, "denoise_min_ms": None, **more}
    times = {"min_ms": fastest, "p50_ms": 1.5 * fastest, "p99_ms": 6 * fastest}
    return {**RUNS, "loops": loops, "steps": steps, "batch": 1, **times, **parts}


def took(*seconds: float) -> list[Took]:
    return [Took(s, s) for s in seconds]


def table(*rows: dict[str, object]) -> dict[str, object]:
    return {"machine": {**MACHINE, "load_average": 3.0}, "rows": list(rows)}


def test_everything_is_run_once_before_it_is_timed_and_then_in_turns():
    seen: list[tuple[Rung, int]] = []
    times = timed(lambda rung, batch: seen.append((rung, batch)), RUNGS, (2,))
    work = [(rung, batch) for rung in RUNGS for batch in (1, 2)]
    rounds = len(times[RUNGS[0], 1])
    assert seen == work * (1 + rounds)


def test_a_chunk_is_divided_into_what_is_done_once_and_for_each_step():
    def seconds(rung: Rung) -> float:
        return rung.loops * (0.010 + 0.005 * rung.steps)

    latency = latency_of({(r, 1): took(seconds(r), 1.1 * seconds(r)) for r in RUNGS})
    for rung in (*RUNGS, Rung(2, 1), Rung(1, 100)):
        expected = seconds(rung)
        assert latency.undisturbed[rung.loops, 1].seconds(rung.steps) == pytest.approx(expected)


def test_a_single_slow_call_at_the_warm_up_changes_nothing():
    times = {(rung, 1): took(0.010, 0.011, 0.012) for rung in RUNGS}
    slow = {**times, (RUNGS[0], 1): took(0.010, 0.011, 30.0)}
    assert Planner(RUNGS, latency_of(slow)).relied_s(RUNGS[0]) == pytest.approx(0.012)


def test_a_batch_is_compared_by_the_fastest_of_each():
    times = {
        **{(rung, 1): took(0.010, 0.100) for rung in RUNGS},
        **{(rung, 4): took(0.900, 0.020) for rung in RUNGS},
    }
    assert Planner(RUNGS, latency_of(times)).batches == (4,)


def test_what_disturbs_on_the_wall_changes_no_comparison_but_what_is_relied_on():
    busy = {
        **{(rung, 1): [Took(0.010, 0.010), Took(0.050, 0.010)] for rung in RUNGS},
        **{(rung, 4): [Took(0.900, 0.020)] for rung in RUNGS},
    }
    plan = Planner(RUNGS, latency_of(busy))
    assert plan.batches == (4,)
    assert plan.relied_s(RUNGS[0]) == pytest.approx(0.050)


def test_a_table_of_this_machine_says_what_is_typical_and_what_to_rely_on():
    rows = [row(k, 4, 2.0 * k, encode_min_ms=0.5 * k, denoise_min_ms=1.5 * k) for k in (1, 2)]
    found = recorded_latency([table(*rows)], MACHINE, RUNS, (1, 2))
    assert found is not None
    plan = Planner(RUNGS, found, margin_s=0.0)
    assert plan.typical_s(Rung(2, 4)) == pytest.approx(0.006)
    assert plan.relied_s(Rung(2, 4)) == pytest.approx(0.024)
    assert plan.typical_s(Rung(1, 2)) == pytest.approx(1.5 * (0.0005 + 0.00075))
    # And it is forgotten in as many chunks as the window has.
    for _ in range(WINDOW):
        plan.observe(Rung(2, 4), 1, 0.004)
    assert plan.relied_s(Rung(2, 4)) == pytest.approx(0.004)


def test_two_step_counts_in_a_table_do_for_a_back_end_without_parts():
    rows = [row(1, 1, 1.0), row(1, 9, 5.0)]
    found = recorded_latency([table(*rows)], MACHINE, RUNS, (1,))
    assert found is not None
    assert found.undisturbed[1, 1].seconds(5) == pytest.approx(0.003)


@pytest.mark.parametrize(
    ("machine", "runs", "loops"),
    [
        ({**MACHINE, "cpu": "Slow"}, RUNS, (1,)),
        ({**MACHINE, "gpu": "H100"}, RUNS, (1,)),
        (MACHINE, {**RUNS, "threads": 2}, (1,)),
        (MACHINE, RUNS, (1, 2)),
    ],
)
def test_a_table_of_something_else_says_nothing(
    machine: dict[str, object], runs: dict[str, object], loops: tuple[int, ...]
):
    rows = [row(1, 4, 2.0, encode_min_ms=0.5, denoise_min_ms=1.5)]
    assert recorded_latency([table(*rows)], machine, runs, loops) is None


def test_the_shipped_bundles_table_can_be_read():
    bundle = Bundle.open(default_bundle())
    (measured,) = bundle.manifest.latency
    runs = {key: measured["rows"][0][key] for key in ("backend", "precision", "threads")}
    found = recorded_latency(bundle.manifest.latency, measured["machine"], runs, bundle.loops)
    assert found is not None
    assert Planner(ladder(bundle.loops, bundle.steps), found).typical_s(Rung(4, 10)) > 0


def test_batches_beside_a_table_keep_how_they_compared_when_measured():
    recorded = Latency({(1, 1): ChunkTime(1.0, 0.0)}, (1.0,))
    measured = Latency({(1, 1): ChunkTime(2.0, 0.0), (1, 4): ChunkTime(4.0, 0.0)}, (9.0,))
    both = with_batches(recorded, measured)
    assert both.undisturbed[1, 4].seconds(1) == pytest.approx(2.0)
    assert both.multiples == (1.0,)
