"""That what is written down about the package (links, dependencies, pins) is what is there."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import loopdit

ROOT = Path(loopdit.__file__).parents[2]
FOLDERS = {"policy", "envs", "datasets", "deploy", "eval", "configs"}
# Run by the interpreter of another environment, which scripts/lerobot_env.sh makes.
ELSEWHERE = {"lerobot_windows.py", "lerobot_itself.py", "lerobot_model.py", "lerobot_arm.py"}


def test_every_folder_is_linked_into_the_package():
    package = Path(loopdit.__file__).parent
    links = {path.name: path.readlink() for path in package.iterdir() if path.is_symlink()}
    assert links == {name: Path("../..") / name for name in FOLDERS}


def test_datasets_folder_stays_a_namespace():
    assert not (ROOT / "datasets" / "__init__.py").exists(), (
        "datasets/__init__.py would shadow the Hugging Face `datasets` package in every "
        "process started from the repository root. Delete it; modules import without it."
    )


def imported_packages(folder: Path) -> dict[str, str]:
    """{top-level name: a file that imports it} for everything in `folder` that is not ours."""
    found: dict[str, str] = {}
    for path in folder.rglob("*.py"):
        if path.name in ELSEWHERE:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                top = name.partition(".")[0]
                # A script of another script, or a folder of them.
                beside = path.with_name(f"{top}.py").exists() or path.with_name(top).is_dir()
                if top not in {*sys.stdlib_module_names, "loopdit", "tests"} and not beside:
                    found[top] = str(path.relative_to(ROOT))
    return found


def declared(extra: str) -> set[str]:
    """The distributions that loopdit[extra] names itself, extras of extras included."""
    found: set[str] = set()
    for line in distribution("loopdit").requires or []:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            name = canonicalize_name(requirement.name)
            if name == "loopdit":
                found = found.union(*(declared(inner) for inner in requirement.extras))
            else:
                found.add(name)
    return found


@pytest.mark.parametrize(("extra", "folders"), [("all", FOLDERS), ("dev", {"tests", "scripts"})])
def test_whatever_is_imported_is_a_declared_dependency(extra: str, folders: set[str]):
    distributions = packages_distributions()
    # None of these is in `all`: each is large, and needed by few.
    allowed = declared(extra).union(
        *map(
            declared,
            (
                "ray",
                "gpu",
                "sweeps",
                "rerun",
                "trackers",
                "openvino",
                "tensorrt-rtx",
                "fused-cuda",
                "camera",
                "transport",
            ),
        )
    )
    undeclared = {
        f"{name} ({path})"
        for folder in folders
        for name, path in imported_packages(ROOT / folder).items()
        if allowed.isdisjoint(canonicalize_name(d) for d in distributions.get(name, [name]))
    }
    assert not undeclared


def reached(name: str, extras: frozenset[str], seen: set[tuple[str, frozenset[str]]]) -> None:
    """Add to `seen` every installed distribution that name[extras] brings."""
    name = canonicalize_name(name)
    if (name, extras) in seen:
        return
    seen.add((name, extras))
    for line in distribution(name).requires or []:
        requirement = Requirement(line)
        wanted = [{"extra": extra} for extra in extras or {""}]
        if requirement.marker is None or any(requirement.marker.evaluate(env) for env in wanted):
            reached(requirement.name, frozenset(requirement.extras), seen)


def pins() -> Iterator[tuple[str, str]]:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, version = line.partition("==")
            yield canonicalize_name(name), version


def test_the_environment_is_what_the_constraints_pin():
    seen: set[tuple[str, frozenset[str]]] = set()
    reached("loopdit", frozenset({"dev"}), seen)
    names = {name for name, _ in seen} - {"loopdit"} | {"pip"}
    installed = {name: Distribution.from_name(name).version.partition("+")[0] for name in names}
    pinned = dict(pins())
    assert {name: pinned.get(name, "no pin") for name in installed} == installed
    unused = set(pinned) - set(installed)
    assert not {name for name in unused if not re.match(r"cuda-|nvidia-|triton$", name)}


def data_files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file() and path.suffix[:3] != ".py"}


@pytest.mark.system
def test_a_built_wheel_imports_from_another_folder(tmp_path: Path):
    def python(*arguments: str, folder: Path = tmp_path) -> str:
        done = subprocess.run(
            [sys.executable, "-P", *arguments], cwd=folder, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    # Without isolation, and with --no-deps: the network is not needed.
    # The sdist is on the way: what it lacks, the wheel lacks.
    python("-m", "build", "--no-isolation", "--outdir", str(tmp_path), ".", folder=ROOT)
    (wheel,) = tmp_path.glob("loopdit-*.whl")
    python("-m", "pip", "install", "--no-deps", "--target", str(tmp_path / "site"), str(wheel))
    package = tmp_path / "site" / "loopdit"
    for folder in FOLDERS:  # templates, YAML, bundles: what is no Python is easily left out
        ours = {path.relative_to(ROOT / folder) for path in data_files(ROOT / folder)}
        assert {path.relative_to(package / folder) for path in data_files(package / folder)} == ours
    script = f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
    script += "".join(f"import loopdit.{folder}\n" for folder in sorted(FOLDERS))
    script += "from importlib.resources import files\n"
    script += "import loopdit.datasets.spec, loopdit.policy\n"
    script += "print(loopdit.policy.__file__, files('loopdit.configs.train') / 'config.yaml')"
    for printed in python("-c", script).split():
        assert Path(printed).is_relative_to(tmp_path / "site")
        assert Path(printed).is_file()
