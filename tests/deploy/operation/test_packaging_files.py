"""That the service and the images start what there is: commands, options, paths and extras."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import loopdit
from loopdit.command_help import options_of
from loopdit.deploy.serving.config import ServeConfig

ROOT = Path(loopdit.__file__).parents[2]
FOLDER = ROOT / "deploy" / "packaging"
UNIT = FOLDER / "policy-serve.service"
DOCKERFILES = sorted(FOLDER.glob("Dockerfile.*"))
OPTIONS = {option.name for option in options_of(ServeConfig)}
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def accepted(arguments: list[str]) -> bool:
    """Whether these are options of policy-serve, with values of theirs."""
    given = dict(argument.split("=", 1) for argument in arguments)
    typed: dict[str, Any] = {**given, "http_port": int(given["http_port"])}
    ServeConfig(**typed)
    return set(given) <= OPTIONS


def instructions(path: Path) -> list[tuple[str, str]]:
    """(instruction, rest of its line) of a Dockerfile."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"(?m)^#.*\n", "", path.read_text()))
    return [(kind, rest) for kind, _, rest in (line.partition(" ") for line in text.splitlines())]


def test_the_service_starts_a_command_of_ours_with_options_that_it_has():
    (start,) = re.findall(r"(?m)^ExecStart=(.*)$", UNIT.read_text())
    command, *arguments = shlex.split(start)
    assert Path(command).name in PROJECT["scripts"]
    assert accepted([argument for argument in arguments if not argument.startswith("$")])
    for line in re.findall(r"SERVE_OPTIONS=(.*)", UNIT.read_text()):
        assert {argument.partition("=")[0] for argument in line.split()} <= OPTIONS


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd")
def test_systemd_finds_no_fault_with_the_service(tmp_path: Path):
    unit = tmp_path / UNIT.name
    here = str(Path(sys.executable).with_name("policy-serve"))
    unit.write_text(UNIT.read_text().replace("/opt/loopdit/bin/policy-serve", here))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True
    )
    about_it = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert not about_it


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.suffix)
def test_an_image_copies_installs_and_runs_what_there_is(path: Path):
    found = instructions(path)
    for kind, rest in found:
        if kind == "COPY" and not rest.startswith("--from"):
            *sources, _ = rest.split()
            assert all((ROOT / source).exists() for source in sources)
    extras = re.findall(r'"\.\[([^\]]*)\]"', path.read_text())
    assert extras
    assert set(extras[0].split(",")) <= set(PROJECT["optional-dependencies"])
    # Docker's exec form is a list of JSON.
    (entry,) = (json.loads(rest) for kind, rest in found if kind == "ENTRYPOINT")
    (arguments,) = (json.loads(rest) for kind, rest in found if kind == "CMD")
    assert entry[0] in PROJECT["scripts"]
    assert accepted(arguments)
    (python,) = {rest.split()[0] for kind, rest in found if kind == "FROM"}
    assert python.removeprefix("python:3.").split("-")[0] in ("11", "12", "13")


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.suffix)
def test_an_image_is_healthy_at_the_port_that_it_serves_and_runs_as_nobody_special(path: Path):
    found = dict(instructions(path))
    (port,) = re.findall(r"127\.0\.0\.1:(\d+)/healthz", found["HEALTHCHECK"])
    assert f"http_port={port}" in found["CMD"]
    assert found["USER"] not in ("root", "0")
