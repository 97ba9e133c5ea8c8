"""That what README.md and its sisters tell a reader to type, open or call is there."""

import re
import runpy
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import loopdit

ROOT = Path(loopdit.__file__).parents[2]
BIN = Path(sys.executable).parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
# Programs of the system that our pages tell to type.
OTHERS = {"docker", "echo", "install", "mkdir", "pip", "python3", "ray", "systemctl"}
COMMANDS_PAGE: dict[str, Any] = runpy.run_path(str(ROOT / "scripts" / "command_page.py"))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def typed(page: Path) -> list[list[str]]:
    """Every command of a page's shell blocks, in words."""
    lines = "".join(blocks(page, "sh")).replace("\\\n", "").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def is_setting(word: str) -> bool:
    """Whether it sets a variable of the environment: NAME=value."""
    return re.match(r"[A-Z][A-Za-z_]*=", word) is not None


def make_targets() -> set[str]:
    targets = set(re.findall(r"^([a-z%-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    recipes = {path.stem for path in (ROOT / "configs" / "train" / "recipe").glob("*.yaml")}
    return targets | {f"recipe-{name}" for name in recipes if "recipe-%" in targets}


@pytest.fixture(scope="module")
def commands() -> dict[str, str]:
    """{command: its --help}, made by calling each."""
    page = COMMANDS_PAGE["page"]()
    return dict(re.findall(r"^## (.+?)\n\n```text\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_lead_somewhere(page: Path):
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    local = [target for target in targets if not target.startswith(("http://", "https://"))]
    assert [target for target in local if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_exists_and_takes_its_options(page: Path, commands: dict[str, str]):
    for words in typed(page):
        words = words[next(i for i, word in enumerate(words) if not is_setting(word)) :]
        words = words[words[0] == "sudo" :]
        program = Path(words[0]).name
        if program in OTHERS:
            continue
        if program == "make":
            assert {word for word in words[1:] if "=" not in word} <= make_targets(), words
        elif program == "python" and words[1] == "-m":
            assert find_spec(words[2]), words
        elif program in ("python", "sh"):
            assert (ROOT / words[1]).is_file(), words
        elif program.startswith("policy-"):
            subcommand = " ".join([program, *words[1:2]])
            program = subcommand if subcommand in commands else program
            options = set(re.findall(r"^  ([a-z_.]+)=", commands[program], re.MULTILINE))
            given = {word.partition("=")[0] for word in words[1:] if "=" in word}
            if "-m" in words:  # Hydra's own
                given = {name for name in given if not name.startswith(("hydra/", "hydra."))}
            assert given <= options | {"recipe"}, words
        else:
            pytest.fail(f"{page.name} tells to type {program!r}, which no test knows.")


def test_every_command_answers_help_as_a_program(commands: dict[str, str]):
    assert set(commands) >= {f"policy-{name}" for name in ("collect", "train", "serve", "eval")}
    started = {
        name: subprocess.Popen([BIN / program, *words, "--help"], stdout=subprocess.PIPE, text=True)
        for name in commands
        for program, *words in [name.split()]
    }
    for name, process in started.items():
        output, _ = process.communicate(timeout=120)
        assert (process.returncode, output) == (0, commands[name])


def test_the_page_of_commands_is_what_the_commands_say():
    assert COMMANDS_PAGE["PAGE"].read_text() == COMMANDS_PAGE["page"](), "Run `make docs`."


def test_what_the_makefile_runs_is_installed_or_in_the_tree(commands: dict[str, str]):
    text = (ROOT / "Makefile").read_text()
    assert {name for name in re.findall(r"\$\(BIN\)/(policy-\w+)", text)} <= set(commands)
    modules = re.findall(r"python -m (loopdit[\w.]+)", text)
    assert modules
    assert [name for name in modules if find_spec(name) is None] == []
    scripts = re.findall(r"\b(?:scripts|tests)/[\w/]+\.\w+", text)
    assert [path for path in scripts if not (ROOT / path).exists()] == []


@pytest.mark.system
@pytest.mark.timeout(120)
def test_the_readmes_client_drives_a_robot_through_the_shipped_policy():
    from loopdit.envs.registry import make_env

    (block,) = blocks(ROOT / "README.md", "python")
    server = subprocess.Popen(
        [BIN / "policy-serve", "address=tcp://127.0.0.1:0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    env = make_env("lift")
    try:
        endpoint = endpoint_of(server)
        observation, _ = env.reset(seed=1_000_000)
        robot = Robot()
        names = {"front": "images.front", "wrist": "images.wrist", "proprio": "proprio"}
        scope: dict[str, Any] = {name: observation[key] for name, key in names.items()}
        exec(block.replace("tcp://127.0.0.1:5555", endpoint), {**scope, "robot": robot})
    finally:
        env.close()
        server.terminate()
        server.communicate(timeout=30)
    assert len(robot.commands) == 8
    assert all(env.action_space.contains(command) for command in robot.commands)


class Robot:
    """Keeps what it is told to do."""

    def __init__(self) -> None:
        self.commands: list[Any] = []

    def command(self, action: Any) -> None:
        self.commands.append(action)


def endpoint_of(server: "subprocess.Popen[str]") -> str:
    """Where the server says it listens."""
    assert server.stdout is not None
    said = ""
    for line in server.stdout:
        said += line
        if found := re.search(r"tcp://127\.0\.0\.1:\d+", line):
            return found[0]
    pytest.fail(f"policy-serve ended before it listened: {said}")
