from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopdit.envs.registry import ENV_NAMES, make_env
from loopdit.errors import ObservationError
from loopdit.policy.encoders.vocabulary import PADDING, UNKNOWN, Vocabulary, words_of

TOLD = ("stack the red cube on the blue cube", "pick up the red cube", "open the drawer")


@pytest.fixture(scope="module")
def built_in() -> dict[str, str]:
    """The instruction of each built-in task."""
    found: dict[str, str] = {}
    for name in ENV_NAMES:
        env = make_env(name, image_size=16, renderer="ray")
        found[name] = env.instruction
        env.close()
    return found


def test_every_built_in_task_is_told_apart_by_words_and_by_number(built_in: dict[str, str]):
    vocabulary = Vocabulary.of(built_in.values())
    rows = {tuple(vocabulary.ids(told).tolist()) for told in built_in.values()}
    assert len(rows) == len(ENV_NAMES)
    assert {int(vocabulary.task(told)) for told in built_in.values()} == set(range(len(ENV_NAMES)))


def test_no_reordering_of_a_tasks_words_is_another_task(built_in: dict[str, str]):
    """Whatever the order: the words of two tasks are never the same ones."""
    vocabulary = Vocabulary.of(built_in.values())
    bags = {name: tuple(sorted(vocabulary.ids(told))) for name, told in built_in.items()}
    assert len(set(bags.values())) == len(ENV_NAMES)
    for name, told in built_in.items():
        others = {tuple(vocabulary.ids(o)) for n, o in built_in.items() if n != name}
        for words in [*permutations(words_of(told))][:500]:
            assert tuple(vocabulary.ids(" ".join(words))) not in others


def test_the_numbers_are_the_places_of_the_words_with_padding_behind():
    vocabulary = Vocabulary(("cube", "red", "the"), length=6)
    assert vocabulary.size == 5
    assert vocabulary.ids("the RED, shiny cube!").tolist() == [4, 3, UNKNOWN, 2, PADDING, PADDING]
    assert vocabulary.ids("cube").dtype == np.int64


def test_the_order_of_the_words_is_kept():
    vocabulary = Vocabulary.of(TOLD)
    swapped = "stack the blue cube on the red cube"
    assert sorted(vocabulary.ids(TOLD[0])) == sorted(vocabulary.ids(swapped))
    assert vocabulary.ids(TOLD[0]).tolist() != vocabulary.ids(swapped).tolist()


@given(st.lists(st.text(), max_size=6))
def test_a_vocabulary_knows_every_word_of_its_data_in_whatever_order_it_came(told: list[str]):
    vocabulary = Vocabulary.of(told)
    assert Vocabulary.of([*reversed(told), *told]) == vocabulary
    for instruction in told:
        ids = vocabulary.ids(instruction)
        assert ids.shape == (vocabulary.length,)
        assert UNKNOWN not in ids
        back = [vocabulary.words[number - 2] for number in ids if number]
        assert back == words_of(instruction)


def test_an_instruction_of_unknown_words_is_named_with_the_closest_known_ones():
    with pytest.raises(ObservationError) as caught:
        Vocabulary.of(TOLD).ids("opne teh drawers")
    told = str(caught.value)
    assert "'opne teh drawers' has no word that the policy knows" in told
    assert "The closest it was trained with: 'open the drawer'" in told


def test_an_empty_instruction_is_understood_where_the_data_had_one():
    assert not Vocabulary.of(["", *TOLD]).ids("  !").any()
    with pytest.raises(ObservationError, match="'' has no word that the policy knows"):
        Vocabulary.of(TOLD).ids("")


def test_an_instruction_longer_than_the_graph_takes_is_refused_not_cut():
    with pytest.raises(ObservationError, match="has 25 words; the policy reads at most 24"):
        Vocabulary.of(TOLD).ids("cube " * 25)
    long = "cube " * 30
    assert (Vocabulary.of([long]).ids(long) > 1).all()


def test_a_task_is_found_by_its_words_and_another_is_refused():
    vocabulary = Vocabulary.of(TOLD)
    assert vocabulary.instructions[vocabulary.task("Open the drawer.")] == "open the drawer"
    with pytest.raises(ObservationError, match=r"none of the policy's 3 tasks. .*'open the dr"):
        vocabulary.task("close the drawer")


@pytest.mark.parametrize("kind", ["words", "task"])
def test_what_a_policy_is_told_has_the_shape_that_its_graph_is_made_for(kind: str):
    vocabulary = Vocabulary.of(TOLD)
    told = [vocabulary.told(kind, instruction) for instruction in TOLD]
    assert {one.shape for one in told} == {vocabulary.told_shape(kind)}
    assert len({one.tobytes() for one in told}) == len(TOLD)


def test_the_numbers_of_words_stay_what_they_are_because_no_checkpoint_has_them():
    """Weights were learned with these: another way of numbering would read them wrongly."""
    numbers = [9, 10, 8, 3, 5, 10, 2, 3]
    assert Vocabulary.of(TOLD).ids(TOLD[0]).tolist() == numbers + [PADDING] * 16


@pytest.mark.parametrize(("said", "known"), [("eat the cake now", "1 word "), ("eat", "no word ")])
def test_an_instruction_that_is_mostly_unknown_names_no_task(said: str, known: str):
    vocabulary = Vocabulary.of(TOLD)
    with pytest.raises(ObservationError, match=f"has {known}"):
        vocabulary.ids(said)
    vocabulary.ids("grab the red cube")  # three words of four
