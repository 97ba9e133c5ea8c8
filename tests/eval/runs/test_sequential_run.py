import itertools

import numpy as np
import pytest

from loopdit.errors import ConfigError
from loopdit.eval.rollouts.condition import Condition
from loopdit.eval.runs.sequential_run import SequentialStop, require_comparable
from loopdit.eval.statistics.sequential import PairedEProcess

A, B, C = Condition(4, 10), Condition(1, 10), Condition(2, 10)


def outcomes(rates: tuple[float, ...], seeds: int, stream: int) -> np.ndarray:
    """(seeds, conditions) bool."""
    return np.random.default_rng(stream).random((seeds, len(rates))) < np.array(rates)


def text(success: bool) -> str:
    return "success" if success else "failure"


def stop_of(table: np.ndarray, order: list[tuple[int, int]]) -> int | None:
    """The stop when outcomes arrive in `order` of (seed index, condition index)."""
    conditions = [A, B, C][: table.shape[1]]
    stop = SequentialStop(conditions, 900_000, len(table))
    for index, place in order:
        stop.add(conditions[place], 900_000 + index, text(table[index, place]))
    return stop.stop_seed


def test_the_stop_is_where_a_slow_version_decides_whatever_the_order_of_arrival():
    table = outcomes((0.95, 0.2, 0.4), seeds=200, stream=1)
    tests = [PairedEProcess(), PairedEProcess()]
    expected = 900_000 - 1
    for row in table:
        expected += 1
        for place, test in enumerate(tests, 1):
            test.update(bool(row[0]), bool(row[place]))
        if all(test.rejects(0.05, comparisons=2) for test in tests):
            break
    assert 900_005 < expected < 900_100
    in_turn = list(itertools.product(range(200), range(3)))
    assert stop_of(table, in_turn) == expected
    # As four workers would finish them: nearly in turn, and some much later.
    late = sorted(in_turn, key=lambda p: p[0] + 7 * ((31 * p[0] + p[1]) % 5))
    assert late != in_turn
    assert stop_of(table, late) == expected


def test_what_is_never_decided_ends_at_the_last_seed_and_not_before_it_is_there():
    table = outcomes((0.5, 0.5), seeds=30, stream=2)
    in_turn = list(itertools.product(range(30), range(2)))
    assert stop_of(table, in_turn[:-1]) is None
    assert stop_of(table, in_turn) == 900_029


def test_a_pair_without_two_verdicts_says_nothing():
    stop = SequentialStop([A, B], 900_000, 100)
    for index in range(100):
        stop.add(A, 900_000 + index, "success")
        stop.add(B, 900_000 + index, "error" if index % 2 else "unstable")
    assert (stop.decided, stop.stop_seed) == (0, 900_099)


def test_one_condition_alone_has_nothing_to_stop_for():
    with pytest.raises(ConfigError, match=r"only one.*loops="):
        require_comparable([A])
    require_comparable([A, B])
