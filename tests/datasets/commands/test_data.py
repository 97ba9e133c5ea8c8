"""The entry point: which subcommands there are, and what a mistake is answered with."""

from importlib import import_module
from pathlib import Path

import pytest
from tests.datasets.commands.calls import Call

from loopdit.datasets.commands.data import SUBCOMMANDS


def test_every_subcommand_has_a_help_of_its_own(call: Call):
    overview = call("--help")
    assert overview.status == 0
    for name, summary in SUBCOMMANDS.items():
        assert import_module(f"loopdit.datasets.commands.{name}").COMMAND.summary == summary
        assert f"  {name} " in overview.out
        done = call(name, "--help")
        assert done.status == 0
        assert done.out.startswith(f"policy-data {name}: {summary}")
        assert f"  policy-data {name} " in done.out


def test_a_misspelt_or_missing_subcommand_is_one_line_that_names_them(call: Call):
    wrong = call("verfiy", "x.zarr")
    assert wrong.status == 1
    assert "Did you mean verify?" in wrong.err
    assert call().err == (
        "policy-data: error: no subcommand is given. They are: info, stats, view, verify, repair, "
        "convert, merge, split."
    )


@pytest.mark.parametrize("name", ["info", "stats", "view", "verify", "repair", "split"])
def test_a_store_that_is_not_there_is_one_line_and_status_1(call: Call, name: str, tmp_path: Path):
    out = ("out=x",) if name == "split" else ()
    done = call(name, tmp_path / "none.zarr", *out)
    assert done.status == 1
    assert len(done.err.splitlines()) == 1
    assert done.err.startswith(f"policy-data {name}: error: there is no episode store at ")
    assert call(name, *out).err.startswith(f"policy-data {name}: error: store has no default")


def test_an_unknown_option_is_named_with_the_nearest(call: Call, store: Path):
    assert "unknown option 'jsn'. Did you mean json?" in call("info", store, "jsn=true").err
