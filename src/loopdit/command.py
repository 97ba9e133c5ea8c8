"""The shell of every `policy-*` command: Hydra configuration in, one clear line out on a mistake.

A command is a frozen dataclass (its options, their defaults, their help) and a function that takes
it. `run_command` composes the dataclass from `configs/<command>/config.yaml`, an optional
`recipe=`, and the command line, and turns the errors that a user can mend into one line and exit
status 1. `LOOPDIT_TRACEBACK=1` shows where such an error was raised.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from importlib import resources
from typing import Any, NoReturn, TypeVar, cast

from loopdit.errors import LoopditError

T = TypeVar("T")

# Hydra's own side effects, off: commands say where they write, and write nothing else.
_QUIET_HYDRA = (
    "hydra.run.dir=.",
    "hydra.output_subdir=null",
    "hydra/job_logging=none",
    "hydra/hydra_logging=none",
)


def option(default: Any, help: str) -> Any:
    """A dataclass field with a default and the sentence `--help` shows for it."""
    metadata = {"help": help}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: default.copy(), metadata=metadata)
    if is_dataclass(default):
        return field(default_factory=lambda: default, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Command:
    """What `--help` says and where the YAML lies (`configs/<folder>/config.yaml`)."""

    name: str
    folder: str
    summary: str
    examples: Sequence[str]


def run_command(command: Command, config: type[T], run: Callable[[T], None]) -> None:
    """Compose `config` from YAML and sys.argv, call `run` with it, exit 1 on a user's mistake."""
    if any(flag in sys.argv[1:] for flag in ("--help", "-h")):
        sys.stdout.write(help_text(command, config))
        return
    # Imported here so that --help answers at once and a robot-side import never loads Hydra.
    import hydra
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    ConfigStore.instance().store(name="schema", node=config)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # raise to us; we print one line ourselves
    overrides = sys.argv[1:]
    sys.argv[1:] = [*_QUIET_HYDRA, *overrides]

    def task(composed: DictConfig) -> None:
        run(cast(T, OmegaConf.to_object(composed)))

    main = hydra.main(
        version_base="1.3",
        config_path=f"pkg://loopdit.configs.{command.folder}",
        config_name="config",
    )(task)
    try:
        main()
    except LoopditError as error:
        _fail(command, str(error))
    except (HydraException, OmegaConfBaseException) as error:
        _fail(command, _one_line(error, config, overrides))
    except KeyboardInterrupt:
        sys.stderr.write(f"{command.name}: stopped.\n")
        sys.exit(130)


def help_text(command: Command, config: type[Any]) -> str:
    """The whole `--help`: what it does, how to call it, every option with its default."""
    rows = list(_options(config))
    width = min(28, max(len(f"{name}={default}") for name, default, _ in rows) + 2)
    lines = [f"{command.name}: {command.summary}", "", "Usage:"]
    lines += [f"  {example}" for example in command.examples]
    lines += ["", "Options (name=default):"]
    for name, default, text in rows:
        shown = f"{name}={default}"
        pad = " " * width
        if len(shown) < width:
            lines.append(f"  {shown:{width}}{text}")
        else:
            lines += [f"  {shown}", f"  {pad}{text}"]
    recipes = _recipes(command.folder)
    if recipes:
        lines += ["", f"Recipes (recipe=NAME sets several options at once): {', '.join(recipes)}"]
    lines += [
        "",
        "Lists are written loops=[1,2,3] (quote them in shells that expand brackets).",
        "LOOPDIT_TRACEBACK=1 shows a traceback with an error.",
    ]
    return "\n".join(lines) + "\n"


def _options(config: type[Any], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    for entry in fields(config):
        default = entry.default if entry.default is not MISSING else None
        if entry.default_factory is not MISSING:
            default = entry.default_factory()
        if is_dataclass(default) and not isinstance(default, type):
            yield from _options(type(default), f"{prefix}{entry.name}.")
        else:
            shown = {None: "", True: "true", False: "false"}.get(
                default if isinstance(default, (bool, type(None))) else 0, default
            )
            yield (
                f"{prefix}{entry.name}",
                str(shown).replace(" ", ""),
                entry.metadata.get("help", ""),
            )


def _recipes(folder: str) -> list[str]:
    group = resources.files("loopdit.configs").joinpath(folder, "recipe")
    if not group.is_dir():
        return []
    return sorted(f.name.removesuffix(".yaml") for f in group.iterdir())


def _one_line(error: Exception, config: type[Any], overrides: Sequence[str]) -> str:
    """Hydra's message without its internals, and the valid names when a name was wrong."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if "not in struct" in first or "not in 'schema'" in first or "Key '" in first:
        names = ", ".join(name for name, _, _ in _options(config))
        given = " ".join(overrides)
        return f"unknown option in {given!r}: {first.strip()}. The options are: recipe, {names}."
    return f"{first.strip()} (in {' '.join(overrides)!r}; see --help)."


def _fail(command: Command, message: str) -> NoReturn:
    if os.environ.get("LOOPDIT_TRACEBACK") == "1":
        raise  # noqa: PLE0704 - only called while an exception is being handled
    sys.stderr.write(f"{command.name}: error: {message}\n")
    sys.exit(1)
