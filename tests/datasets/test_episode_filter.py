import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopdit.datasets.episode_filter import (
    EpisodeFilter,
    choose_episodes,
    hold_out,
    short_episodes,
)
from loopdit.datasets.mixing import DataPart
from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.store import Episode, EpisodeStore, EpisodeWriter
from loopdit.errors import ConfigError, StoreError

MakeEpisode = Callable[[int, int], Episode]


@pytest.fixture(scope="module")
def store(
    tmp_path_factory: pytest.TempPathFactory, spec: PolicySpec, episode: MakeEpisode
) -> EpisodeStore:
    """Episodes of 3 to 8 steps; succeeded: 0, 2, unknown: 4; about a drawer: 1, 2, 3."""
    path = tmp_path_factory.mktemp("filter") / "store"
    writer = EpisodeWriter.create(path, spec, {})
    for seed in range(6):
        made = episode(seed, 3 + seed)
        success = None if seed == 4 else made.success
        text = "open the Drawer" if seed in (1, 2, 3) else made.instruction
        writer.append(replace(made, success=success, instruction=text))
    return EpisodeStore.open(path)


@pytest.mark.parametrize(
    ("options", "kept", "sentence"),
    [
        ({}, [0, 1, 2, 3, 4, 5], "6 of 6 episodes of .*: no filter"),
        ({"success": True}, [0, 2], "2 of 6 episodes of .*: known to have succeeded"),
        ({"contains": "drawer"}, [1, 2, 3], "3 of 6 .* with 'drawer' in the instruction"),
        ({"min_steps": 5, "max_steps": 6}, [2, 3], "2 of 6 .* 5 steps or more, of 6 steps or f"),
        ({"contains": "DRAWER", "limit": 2}, [1, 2], "2 of 6 .*, the first 2 of 3"),
        ({"success": True, "contains": "drawer"}, [2], "1 of 6 "),
    ],
)
def test_a_filter_keeps_the_episodes_that_pass_all_of_it_and_says_how_many(
    store: EpisodeStore, options: dict[str, Any], kept: list[int], sentence: str
):
    chosen = choose_episodes(store, EpisodeFilter(**options))
    assert chosen.episodes == kept
    assert re.match(sentence, chosen.sentence)


def test_a_filter_that_leaves_nothing_is_refused_and_says_why(store: EpisodeStore):
    with pytest.raises(
        StoreError,
        match=r"none of the 6 episodes of .*: 2 are known to have succeeded, 0 are with 'cup' in "
        r"the instruction, of 1 nobody knows whether they succeeded. Loosen it",
    ):
        choose_episodes(store, EpisodeFilter(success=True, contains="cup"))


@pytest.mark.parametrize(
    ("options", "refusal"),
    [
        ({"min_steps": -1}, "min_steps=-1 must not be negative"),
        ({"min_steps": 9, "max_steps": 8}, "at least min_steps=9 and at most max_steps=8"),
    ],
)
def test_a_filter_that_nothing_can_pass_is_refused(options: dict[str, Any], refusal: str):
    with pytest.raises(ConfigError, match=refusal):
        EpisodeFilter(**options)


@given(share=st.floats(0.001, 0.999), seed=st.integers(0, 2**63 - 1))
def test_every_episode_is_trained_on_or_held_out(store: EpisodeStore, share: float, seed: int):
    try:
        training, held = hold_out(store, share, seed)
    except StoreError:  # all six fell below: nothing would be left
        return
    assert sorted([*training, *held]) == list(range(6))
    assert training
    assert held


def test_nothing_is_held_out_where_nothing_is_asked_for(store: EpisodeStore):
    assert hold_out(store, 0, 5) == ([0, 1, 2, 3, 4, 5], [])
    assert hold_out(store, 0, 5, [4, 2]) == ([4, 2], [])


def test_more_episodes_move_none_from_training_to_validation(
    tmp_path: Path, spec: PolicySpec, episode: MakeEpisode
):
    writer = EpisodeWriter.create(tmp_path / "store", spec, {})
    sides: list[set[str]] = []
    for seed in range(200):
        writer.append(episode(seed, 1))
        if seed in (99, 199):
            store = EpisodeStore.open(tmp_path / "store")
            sides.append({store.episodes[i].digest for i in hold_out(store, 0.2, seed=7)[1]})
    assert sides[0] < sides[1]
    # Binomial with 200 trials: outside with a probability below one in a million.
    assert 14 <= len(sides[1]) <= 70


def test_another_seed_holds_out_other_episodes(store: EpisodeStore):
    assert len({tuple(hold_out(store, 0.3, seed)[1]) for seed in range(20)}) > 3


def test_holding_out_the_only_episode_is_refused(store: EpisodeStore):
    with pytest.raises(StoreError, match=r"holding out 50% of the 1 episodes .* leaves none"):
        hold_out(store, 0.5, 0, [3])


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_that_is_none_is_refused(store: EpisodeStore, share: float):
    with pytest.raises(ConfigError, match="cannot be held out"):
        hold_out(store, share, 0)


def test_episodes_shorter_than_a_chunk_are_named(store: EpisodeStore):
    short = short_episodes([DataPart(store, [0, 1, 5])], horizon=5)
    assert [(one.id, one.length) for one in short] == [("episode_000000", 3), ("episode_000001", 4)]
    assert str(short[0]) == f"episode_000000 of {store.path} has 3 steps"
