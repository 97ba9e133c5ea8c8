"""Words by place, as they reach Hydra."""

import sys
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopdit.command import Command, option
from loopdit.subcommand import refuse_subcommand, run_subcommand


@dataclass(frozen=True)
class Places:
    """Any command's YAML does: it only names the schema."""

    a: str = option("", "the first word")
    b: str = option("", "the second")
    more: list[str] = option([], "the others")
    out: str = option("", "an option")


def places(*arguments: str, rest: str = "") -> Places:
    """What a command is run with."""
    seen: list[Places] = []
    command = Command("policy-toy words", "data_info", "takes words.", ())
    run_subcommand(command, Places, seen.append, arguments, places=("a", "b"), rest=rest)
    return seen[0]


def test_words_stand_for_options_in_their_order_wherever_they_are():
    assert places("x", "y") == Places("x", "y")
    assert places("out=z", "x") == Places("x", out="z")
    assert places("x", "y", "z", "out=o", "w", rest="more") == Places("x", "y", ["z", "w"], "o")


@settings(max_examples=25)  # each composes a configuration twice
@given(st.text("ab'\\ ,[]{}:#\"", min_size=1).filter(lambda word: word.strip() == word))
def test_any_path_arrives_as_it_was_typed(word: str):
    assert places(word).a == word
    assert places("x", "y", word, word, rest="more").more == [word, word]


def test_a_path_may_have_an_equals_sign_below_a_folder():
    assert places("data/year=2024/a.zarr").a == "data/year=2024/a.zarr"
    assert places("s3://bucket/year=2024/a.zarr").a == "s3://bucket/year=2024/a.zarr"


def test_the_arguments_are_put_back_for_whoever_records_them():
    before = sys.argv[:]
    places("x")
    assert sys.argv == before


def test_one_word_too_many_is_refused(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        places("x", "y", "z")
    assert stopped.value.code == 1
    assert capsys.readouterr().err.startswith("policy-toy words: error: 'z' is not written name=")


def test_a_misspelt_subcommand_is_answered_with_the_nearest():
    with pytest.raises(SystemExit, match=r"'repiar' is none .* mean repair\? They are: info, rep"):
        refuse_subcommand("policy-data", "repiar", ("info", "repair"))
