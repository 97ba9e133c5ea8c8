import pytest
from tests.eval.paired_rows import older, paired_row

from loopdit.errors import ConfigError
from loopdit.eval.statistics.seed_pairs import LeftOut, outcome, pair_by_seed, row_name

NAMES = ("one", "other")


def test_pairs_are_the_seeds_that_both_have_in_order_whatever_the_order_of_the_rows():
    a = paired_row("sfsf", first_seed=900_000)
    b = paired_row("ssff", first_seed=900_002)
    b["rollouts"].reverse()
    pairs = pair_by_seed(a, b, NAMES)
    assert pairs.seeds == [900_002, 900_003]
    assert pairs.success_a.tolist() == [True, False]
    assert pairs.success_b.tolist() == [True, True]
    assert (pairs.left_out_a, pairs.left_out_b) == (LeftOut(seeds=2), LeftOut(seeds=2))


def test_broken_physics_and_exceptions_are_no_failures_but_counted():
    pairs = pair_by_seed(paired_row("ssfues"), paired_row("fesuus"), NAMES)
    assert [seed - 900_000 for seed in pairs.seeds] == [0, 2, 5]
    assert pairs.left_out_a == LeftOut(seeds=0, unstable=1, errors=1)
    assert pairs.left_out_b == LeftOut(seeds=0, unstable=2, errors=1)


def test_older_files_pair_like_newer_ones():
    a, b = paired_row("sfus"), paired_row("ssfs")
    new, old = pair_by_seed(a, b, NAMES), pair_by_seed(older(a), older(b), NAMES)
    assert old.seeds == new.seeds == [900_000, 900_001, 900_003]
    assert [outcome(r) for r in older(a)["rollouts"]] == [outcome(r) for r in a["rollouts"]]


def test_times_are_seconds_so_that_two_control_rates_compare():
    fast = paired_row("ss", control={"period_s": 0.05})
    pairs = pair_by_seed(fast, paired_row("ss"), NAMES)
    assert pairs.seconds_a.tolist() == pytest.approx([2, 2])
    assert pairs.seconds_b.tolist() == pytest.approx([4, 4])


def test_no_seed_in_common_is_refused_with_the_seeds_of_both():
    with pytest.raises(ConfigError, match="one has seeds 900000 to 900002 and other 5 to 6: none"):
        pair_by_seed(paired_row("sss"), paired_row("ss", first_seed=5), NAMES)


def test_no_verdict_in_common_is_refused():
    with pytest.raises(ConfigError, match="2 seeds in common, and on each of them one ended"):
        pair_by_seed(paired_row("su"), paired_row("es"), NAMES)


def test_a_row_without_rollouts_is_refused():
    with pytest.raises(ConfigError, match="served K=1 lists no rollouts"):
        pair_by_seed(paired_row(""), paired_row("s"), NAMES)


def test_a_row_is_called_by_its_label_or_its_kind_and_its_depth():
    assert row_name(paired_row("s", label="old", loops=3)) == "old K=3"
    assert row_name(paired_row("s", kind="expert", loops=None)) == "expert"
