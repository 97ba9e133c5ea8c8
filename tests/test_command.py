"""The shell of the commands: what a user sees of it, in a process where that matters."""

import json
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import loopdit.configs
from loopdit.command import option, require_effect
from loopdit.errors import ConfigError

TOY = Path(__file__).parent / "toy_command.py"
CONFIG = "defaults:\n  - schema\n  - optional recipe: null\n  - _self_\n"
RECIPE = "# @package _global_\nepisodes: 7\nmodel:\n  width: 16\n"

Outcome = tuple[int, str, str]  # exit status, standard output, standard error
Call = Callable[..., Outcome]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder; the YAML of the command, with a recipe `quick`, is beside it."""
    recipes = tmp_path / "configs" / "toy" / "recipe"
    recipes.mkdir(parents=True)
    (recipes / "quick.yaml").write_text(RECIPE)
    (recipes.parent / "config.yaml").write_text(CONFIG)
    (recipes.parent / "__init__.py").write_text("")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("LOOPDIT_TRACEBACK", "0")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    return tmp_path / "work"


@pytest.fixture
def call(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """call(argument, ...) within this process: a process for each would take half a second."""
    path = [*loopdit.configs.__path__, str(folder.parent / "configs")]
    monkeypatch.setattr(loopdit.configs, "__path__", path)
    monkeypatch.delitem(sys.modules, "loopdit.configs.toy", raising=False)
    toy = runpy.run_path(str(TOY))

    def run(*arguments: str, main: str = "main") -> Outcome:
        monkeypatch.setattr(sys, "argv", ["policy-toy", *arguments])
        status = 0
        try:
            toy[main]()
        except SystemExit as stopped:
            status = int(stopped.code or 0)
        captured = capfd.readouterr()
        return status, captured.out, captured.err

    return run


def started(folder: Path, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
    """The command as a user's shell starts it."""
    return subprocess.Popen(
        [sys.executable, str(TOY), str(folder.parent / "configs"), *arguments],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def settings(outcome: Outcome) -> list[dict[str, Any]]:
    """What each run of the command was given."""
    status, output, errors = outcome
    assert (status, errors) == (0, "")
    return [json.loads(line) for line in output.splitlines()]


def refusal(outcome: Outcome) -> str:
    """The one line with which the command refuses; nothing else may be printed."""
    status, output, errors = outcome
    assert (status, output) == (1, "")
    assert errors.count("\n") == 1, errors
    assert errors.startswith("policy-toy: error: ")
    return errors


def test_help_shows_every_option_with_its_default_and_its_sentence(call: Call):
    status, output, errors = call("--help")
    assert (status, errors) == (0, "")
    rows = [line.split(maxsplit=1) for line in output.splitlines() if line.startswith("  ")]
    assert {row[0]: row[1] for row in rows if "=" in row[0]} == {
        "episodes=50": "how many episodes to play",
        "loops=[1,2,3]": "loop counts",
        "seed=null": "first seed; null draws one",
        "rate=0.5": "learning rate",
        "append=false": "continue what is there",
        "out=''": "where results go",
        "model.width=32": "the width of a token",
        "model.names=[a,b]": "two names",
    }
    assert "policy-toy episodes=5" in output
    assert "quick" in output


def test_without_arguments_the_defaults_run(call: Call):
    (given,) = settings(call())
    assert given["loops"] == [1, 2, 3]
    assert given["seed"] is None
    assert given["model"] == {"width": 32, "names": ["a", "b"]}


def test_every_kind_of_option_takes_a_value_and_the_run_sees_what_was_typed(call: Call):
    typed = ["episodes=3", "loops=[4]", "seed=7", "rate=1", "append=true", "model.names=[x]"]
    typed += ["out=tcp://127.0.0.1:5555", "model.width=2"]
    assert settings(call(*typed)) == [
        {
            "episodes": 3,
            "loops": [4],
            "seed": 7,
            "rate": 1.0,
            "append": True,
            "out": "tcp://127.0.0.1:5555",
            "model": {"width": 2, "names": ["x"]},
            "argv": typed,
        }
    ]


def test_a_command_writes_nothing_of_its_own(call: Call, folder: Path):
    settings(call("episodes=3"))
    settings(call("-m", "episodes=3,4"))
    assert list(folder.iterdir()) == []


def test_a_recipe_sets_options_and_the_command_line_wins(call: Call):
    (given,) = settings(call("recipe=quick", "episodes=9"))
    assert (given["episodes"], given["model"]) == (9, {"width": 16, "names": ["a", "b"]})


def test_an_unknown_recipe_is_refused_with_the_names_of_those_there_are(call: Call):
    assert "no recipe is named 'slow'. There are: quick." in refusal(call("recipe=slow"))


def test_an_unknown_option_is_refused_with_the_names_of_all(call: Call):
    line = refusal(call("episode=3"))
    assert "unknown option 'episode'. Did you mean episodes?" in line
    assert "recipe, episodes, loops, seed, rate, append, out, model.width, model.names." in line


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        ("episodes=many", "episodes=many: "),
        ("loops=3", "loops=3: "),
        ("loops=[a]", "loops=[a]: "),
        ("append=perhaps", "append=perhaps: "),
        ("model.width=wide", "model.width=wide: "),
        ("model=3", "model=3: "),
        ("loops=[1,2", "'loops=[1,2'"),
        ("episodes=1,2", "add -m"),
        ("episodes=0", "episodes=0 is below 1"),
        ("model.width=7", "model.width=7 is odd"),
        ("+episodes=2", "'+episodes'"),
        ("--verbose", "--help, --multirun"),
        ("--episodes", "no dashes: episodes=..."),
        ("--episodes=2", "no dashes: episodes=2"),
        ("episodes", "name=value"),
        ("hydra/launcher=moon", "hydra/launcher/moon"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(call: Call, typed: str, named: str):
    assert named in refusal(call(typed))


def test_text_that_hydra_cannot_read_can_be_quoted_as_the_error_says(call: Call):
    assert """'out="run (2)=b"'""" in refusal(call("out=run (2)=b"))
    (given,) = settings(call('out="run (2)=b"'))
    assert given["out"] == "run (2)=b"


def test_an_option_without_a_default_is_asked_for(call: Call):
    assert "store=REQUIRED" in call("--help", main="main_required")[1]
    assert "give store=VALUE" in refusal(call(main="main_required"))
    assert call("store=here", main="main_required") == (0, "here\n", "")


@pytest.mark.parametrize("typed", [("-m", "seed=1,2", "rate=2"), ("seed=1,2", "rate=2", "-m")])
def test_multirun_runs_once_with_each_value(call: Call, typed: tuple[str, ...]):
    runs = settings(call(*typed))
    assert [(run["seed"], run["rate"]) for run in runs] == [(1, 2.0), (2, 2.0)]
    assert runs[0]["argv"] == list(typed)


def test_a_launcher_that_is_not_there_is_named_with_what_brings_it(call: Call):
    status, _, errors = call("-m", "hydra/launcher=slrm", "seed=1,2")
    assert status == 1
    assert "Could not find 'hydra/launcher/slrm'" in errors
    assert "pip install 'loopdit[sweeps]'" in errors


def test_multirun_fails_when_one_of_its_runs_does(call: Call):
    status, _, errors = call("-m", "episodes=2,0")
    assert status == 1
    assert "episodes=0 is below 1" in errors.splitlines()[-1]
    assert "Traceback" not in errors


def test_a_users_error_inside_the_run_is_one_line_in_a_process_too(call: Call, folder: Path):
    within = call("out=refused")
    assert "refused. Start it first." in refusal(within)
    process = started(folder, "out=refused")
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == within


def test_the_traceback_of_a_users_error_is_shown_when_asked_for(folder: Path):
    process = started(folder, "out=refused", LOOPDIT_TRACEBACK="1")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Traceback" in errors
    assert "raise ServerError" in errors


def test_a_bug_keeps_its_traceback(folder: Path):
    process = started(folder, "out=bug")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.splitlines()[-1] == "RuntimeError: a bug of ours"


def test_a_command_whose_output_nobody_reads_ends_quietly(folder: Path):
    with started(folder, "out=endless") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "more\n"
        process.stdout.close()  # as `| head -1` does
        assert process.wait(timeout=60) == 141
        assert process.stderr.read() == ""


def test_an_interrupted_command_says_so_and_exits_130(folder: Path):
    process = started(folder, "out=forever")
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "policy-toy: stopped.\n")


@dataclass(frozen=True)
class Limits:
    low: int = option(0, "least")
    high: int = option(1, "most")


EVERY = ("port", "names", "quiet", "limits")


@dataclass(frozen=True)
class Served:
    port: int = option(5555, "the port")
    names: list[str] = option(["a"], "some names")
    quiet: bool = option(False, "say nothing")
    limits: Limits = option(Limits(), "limits")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Served(port=1), r"serve\.port=1 does nothing without serve=true\. Give that, too, or"),
        (Served(names=["b"]), r"serve\.names=\['b'\] does nothing"),
        (Served(quiet=True), r"serve\.quiet=true does nothing"),
        (
            Served(limits=Limits(high=2)),
            r"^serve\.limits\.high=2 does nothing .*leave serve\.limits\.high out",
        ),
    ],
)
def test_an_option_without_effect_is_refused_where_it_differs_from_its_default(
    given: Served, said: str
):
    with pytest.raises(ConfigError, match=said):
        require_effect(given, EVERY, "serve=true", "serve.")
    require_effect(Served(), EVERY, "serve=true", "serve.")
    require_effect(given, (), "serve=true", "serve.")
