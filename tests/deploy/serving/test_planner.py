"""Which rung a request gets, with times as numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopdit.deploy.serving.planner import (
    PROBE,
    WINDOW,
    ChunkTime,
    Latency,
    Planner,
    Rung,
    ladder,
)

RUNGS = ladder((1, 2, 4), 8)
MS = 1e-3


def known(multiples: tuple[float, ...] = (1.0,), batch_share: float = 1.0) -> Latency:
    """K ms for each K, and as much for each 8 steps; a batch of 4 as `batch_share` says."""
    alone = {(k, 1): ChunkTime(k * MS, k * MS / 8) for k in (1, 2, 4)}
    together = {
        (k, 4): ChunkTime(4 * batch_share * t.fixed_s, 4 * batch_share * t.step_s)
        for (k, _), t in alone.items()
    }
    return Latency({**alone, **together}, multiples)


def planner(multiples: tuple[float, ...] = (1.0,), **options: float) -> Planner:
    return Planner(RUNGS, known(multiples, **options), margin_s=0.0)


plan_free = planner()  # which has seen nothing


def test_loops_are_given_up_before_steps():
    pairs = [(rung.loops, rung.steps) for rung in RUNGS]
    assert pairs == [(4, 8), (2, 8), (1, 8), (1, 4), (1, 2), (1, 1)]
    assert ladder((3,), 8, halve_steps=False) == (Rung(3, 8),)


@pytest.mark.parametrize(
    ("left_ms", "rung"),
    [
        (float("inf"), Rung(4, 8)),
        (8.01, Rung(4, 8)),
        (7.9, Rung(2, 8)),
        (3.9, Rung(1, 8)),
        (1.9, Rung(1, 4)),
        (1.2, Rung(1, 1)),
        (1.12, None),
        (-5, None),
    ],
)
def test_a_request_gets_the_deepest_rung_that_ends_in_time(left_ms: float, rung: Rung | None):
    assert planner().choose(RUNGS, left_ms * MS) == rung


def test_the_way_to_the_client_is_kept_free():
    with_margin = Planner(RUNGS, known(), margin_s=1 * MS)
    assert with_margin.choose(RUNGS, 8.5 * MS) == Rung(2, 8)
    assert with_margin.choose(RUNGS, 9.1 * MS) == Rung(4, 8)


def test_a_cold_call_changes_nothing_and_a_second_one_does():
    plan = planner()
    plan.observe(Rung(4, 8), 1, 5.0)
    assert plan.relied_s(Rung(4, 8)) == pytest.approx(8 * MS)
    plan.observe(Rung(4, 8), 1, 5.0)
    assert plan.relied_s(Rung(4, 8)) == pytest.approx(5.0)
    assert plan.typical_s(Rung(4, 8)) == pytest.approx(8 * MS)


def test_what_slows_one_rung_is_expected_of_all():
    plan = planner()
    for _ in range(WINDOW):
        plan.observe(Rung(4, 8), 1, 24 * MS)  # three times as long
    assert plan.typical_s(Rung(1, 8)) == pytest.approx(6 * MS)
    assert plan.choose(RUNGS, 8.1 * MS) == Rung(1, 8)
    for _ in range(WINDOW):
        plan.observe(Rung(1, 8), 1, 2 * MS)
    assert plan.choose(RUNGS, 8.1 * MS) == Rung(4, 8)


def preempted(random: np.random.Generator, seconds: float, rate_hz: float, slice_s: float) -> float:
    """What a chunk takes where other programs take the core from it, so often and for so long."""
    slices = random.poisson(rate_hz * seconds)
    return seconds + float(random.uniform(0.5, 1.5, slices).sum()) * slice_s


@pytest.mark.parametrize(("rate_hz", "slice_s"), [(5, 10 * MS), (30, 8 * MS), (100, 4 * MS)])
def test_interruptions_of_short_chunks_are_not_taken_for_slowness(rate_hz: float, slice_s: float):
    random, plan = np.random.default_rng(0), planner()
    short = [preempted(random, 2 * MS, rate_hz, slice_s) for _ in range(WINDOW)]
    for took_s in short:
        plan.observe(Rung(1, 8), 1, took_s)
    relied_s, as_slow_s = plan.relied_s(Rung(4, 8)), sorted(short)[-2] / (2 * MS) * 8 * MS
    assert relied_s < 0.7 * as_slow_s
    long = [preempted(random, 8 * MS, rate_hz, slice_s) for _ in range(10_000)]
    assert np.mean(np.array(long) <= relied_s) > 0.97


@pytest.mark.parametrize(("rate_hz", "slice_s"), [(30, 8 * MS), (100, 4 * MS)])
def test_on_a_shared_machine_who_has_the_time_gets_the_whole_depth(rate_hz: float, slice_s: float):
    random, plan = np.random.default_rng(1), planner()
    given, late = list[Rung](), 0
    for _ in range(4000):
        left_s = float(random.choice([4 * MS, 10 * MS, 40 * MS]))
        rung = plan.choose(RUNGS, left_s)
        if rung is None:
            plan.refused(1)
            continue
        took_s = preempted(random, plan_free.typical_s(rung), rate_hz, slice_s)
        plan.observe(rung, 1, took_s)
        late += took_s > left_s
        if left_s > 30 * MS:
            given.append(rung)
    assert given.count(Rung(4, 8)) > 0.9 * len(given)
    assert late < 0.03 * 4000


def test_what_passes_around_compute_does_not_grow_with_it():
    plan = planner()
    for _ in range(WINDOW):
        plan.observe(Rung(1, 1), 1, 1.125 * MS, around_s=1 * MS)
    assert plan.typical_s(Rung(1, 1)) == pytest.approx(2.125 * MS)
    assert plan.typical_s(Rung(4, 8)) == pytest.approx(9 * MS)


def test_when_nothing_can_be_relied_on_the_shallowest_is_run_while_it_is_likely_in_time():
    plan = planner(multiples=(1.0, 1.0, 1.0, 50.0, 50.0))
    assert plan.choose(RUNGS, 1.2 * MS) == Rung(1, 1)
    assert plan.choose(RUNGS, 1.1 * MS) is None


@settings(max_examples=20)
@given(st.lists(st.floats(1.0, 100.0), min_size=WINDOW, max_size=2 * WINDOW))
def test_what_is_relied_on_is_exceeded_once_in_the_window(multiples: list[float]):
    plan = planner()
    for multiple in multiples:
        plan.observe(Rung(1, 8), 1, multiple * 2 * MS)
    over = [m for m in multiples[-WINDOW:] if m * 2 * MS > plan.relied_s(Rung(1, 8)) * (1 + 1e-9)]
    assert len(over) <= 1


def test_one_of_twenty_that_are_refused_is_tried_and_counts_for_all():
    plan = planner()
    for _ in range(WINDOW):
        plan.observe(Rung(1, 8), 1, 1.0)  # the machine is busy: 500 times as long
    assert plan.choose(RUNGS, 10 * MS) is None
    tried = 0
    for _ in range(6 * PROBE):
        if plan.choose(RUNGS, 10 * MS) is None:
            plan.refused(1)
        else:
            tried += 1
            plan.observe(Rung(1, 1), 1, 1.125 * MS)  # it is free again
    assert 1 <= tried <= 6 * PROBE
    assert plan.typical_s(Rung(1, 8)) == pytest.approx(2 * MS)
    assert plan.choose(RUNGS, 10 * MS) is not None


@pytest.mark.parametrize(
    ("loops", "steps", "allowed"),
    [
        (0, 0, RUNGS),
        (2, 0, (Rung(2, 8),)),
        (1, 0, RUNGS[2:]),
        (3, 0, (Rung(3, 8),)),
        (0, 4, (Rung(4, 4), Rung(2, 4), Rung(1, 4))),
        (4, 100, (Rung(4, 100),)),
    ],
)
def test_what_a_request_says_is_kept(loops: int, steps: int, allowed: tuple[Rung, ...]):
    assert planner().allowed(loops, steps) == allowed


def test_steps_that_are_not_on_the_ladder_are_expected_to_take_their_share():
    assert planner().typical_s(Rung(2, 80)) == pytest.approx(22 * MS)
    plan = planner()
    for _ in range(WINDOW):  # and say nothing: the first of them may compile something
        plan.observe(Rung(2, 80), 1, 10.0)
    assert plan.typical_s(Rung(2, 8)) == pytest.approx(4 * MS)


def test_a_policy_that_was_not_measured_is_never_thought_late():
    plan = Planner(RUNGS)
    plan.observe(Rung(4, 8), 1, 10.0)
    assert plan.choose(RUNGS, 0.0) == Rung(4, 8)
    assert plan.least_s(RUNGS) == 0.0


@pytest.mark.parametrize(("share", "batches"), [(0.5, (4,)), (0.95, ())])
def test_only_batches_that_pay_are_taken(share: float, batches: tuple[int, ...]):
    assert planner(batch_share=share).batches == batches
