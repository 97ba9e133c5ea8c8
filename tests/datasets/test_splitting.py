import hashlib
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopdit.datasets.episode import EpisodeRecord
from loopdit.datasets.splitting import by_instruction, by_outcome, by_shares
from loopdit.errors import ConfigError


def records(count: int, twice: int = 0) -> list[EpisodeRecord]:
    """`count` episodes; the last `twice` have the content of the first ones."""
    contents = [*range(count - twice), *range(twice)]
    return [
        EpisodeRecord(
            id=f"episode_{number:06d}",
            length=5,
            instruction=("Lift!", "lift", "push the cube")[content % 3],
            success=(True, False, None)[content % 3],
            seed=content,
            digest=hashlib.sha256(bytes([content])).hexdigest()[:32],
        )
        for number, content in enumerate(contents)
    ]


@given(count=st.integers(10, 200), twice=st.integers(0, 4), seed=st.integers(0, 9))
def test_each_episode_is_in_exactly_one_part_and_parts_have_their_shares(
    count: int, twice: int, seed: int
):
    parts = by_shares(records(count, twice), [0.5, 0.3, 0.2], [], seed)
    assert list(parts) == ["train", "validation", "test"]
    assert sorted(index for part in parts.values() for index in part) == list(range(count))
    for part, share in zip(parts.values(), (0.5, 0.3, 0.2), strict=True):
        assert abs(len(part) - share * count) <= 1 + twice


def test_episodes_of_equal_content_are_never_on_both_sides():
    given = records(40, twice=20)
    for seed in range(10):
        train, validation = by_shares(given, [0.7, 0.3], [], seed).values()
        assert not {given[i].digest for i in train} & {given[i].digest for i in validation}


def test_the_parts_depend_on_content_and_seed_and_not_on_the_order_of_the_list():
    given = records(50)
    turned = given[::-1]

    def train(listed: list[EpisodeRecord], seed: int) -> set[str]:
        return {listed[i].digest for i in by_shares(listed, [0.8, 0.2], [], seed)["train"]}

    assert train(given, 0) == train(turned, 0)
    assert train(given, 0) != train(given, 1)


def test_every_episode_is_held_out_about_as_often_under_many_seeds():
    given, held_out, seeds = records(10), Counter[int](), 400
    for seed in range(seeds):
        held_out.update(by_shares(given, [0.8, 0.2], [], seed)["validation"])
    # Binomial(400, 0.2): 80 +- 8; six standard deviations fail once in 10^8.
    assert all(32 < held_out[index] < 128 for index in range(10))


@pytest.mark.parametrize(
    ("shares", "names", "said"),
    [
        ([float("nan"), 1.0], [], r"shares=\[nan,1\] must"),
        ([0.9, 0.2], [], r"shares=\[0.9,0.2\] must .* they sum to 1.1"),
        ([1.0], [], "two or more"),
        ([1.1, -0.1], [], "above 0"),
        ([0.5, 0.5], ["a"], "1 names for 2 shares"),
        ([0.5, 0.5], ["a", "../b"], r"'\.\./b' cannot be a part's name"),
        ([0.5, 0.5], ["a", "a"], "each name once"),
        ([1 / 11] * 11, [], "are 11 parts, and the store has 10 different episodes"),
    ],
)
def test_shares_that_cannot_be_are_refused(shares: list[float], names: list[str], said: str):
    with pytest.raises(ConfigError, match=said):
        by_shares(records(10), shares, names, 0)


@given(count=st.integers(3, 12), first=st.floats(0.01, 0.98), seed=st.integers(0, 9))
def test_every_part_has_an_episode_however_small_its_share(count: int, first: float, seed: int):
    parts = by_shares(records(count), [first, (1 - first) / 2, (1 - first) / 2], [], seed)
    assert min(map(len, parts.values())) >= 1
    assert sum(map(len, parts.values())) == count


def test_outcomes_and_instructions_make_a_part_each():
    given = records(6)
    assert by_outcome(given) == {"success": [0, 3], "failure": [1, 4], "unknown": [2, 5]}
    assert by_outcome(given[:2]) == {"success": [0], "failure": [1]}
    # "Lift!" and "lift" are two instructions and would have one name.
    assert by_instruction(given) == {"lift": [0, 3], "lift-2": [1, 4], "push-the-cube": [2, 5]}
