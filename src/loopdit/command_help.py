"""What `--help` prints: every option of a command's dataclass with its default and its sentence.

Reads dataclasses and lists files only, so that help answers before anything heavy is imported.
"""

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from importlib import resources
from textwrap import wrap
from typing import Any

_WIDTH = 100
_HELP_COLUMN = 30


@dataclass(frozen=True)
class Option:
    """One `name=default`, written as it is typed; nested options are `outer.inner`."""

    name: str
    default: str
    help: str


def help_text(
    name: str, summary: str, examples: Sequence[str], folder: str, config: type[Any]
) -> str:
    """The whole `--help` of a command: what it does, how to call it, what can be set."""
    lines = [f"{name}: {summary}", "", "Usage:", *(f"  {example}" for example in examples)]
    lines += ["", "Options (name=default):"]
    options = options_of(config)
    column = min(_HELP_COLUMN, 4 + max((len(_shown(option)) for option in options), default=0))
    for option in options:
        lines += _rows(_shown(option), option.help, column)
    recipes = recipes_of(folder)
    if recipes:
        lines += ["", f"Recipes (recipe=NAME sets several options at once): {', '.join(recipes)}"]
    lines += [
        "",
        "A list is written [1,2,3] (quote it in shells that expand brackets), no value is null.",
        "With -m an option takes several values and the command runs with each: -m seed=0,1,2",
        "LOOPDIT_TRACEBACK=1 shows a traceback with an error.",
    ]
    return "\n".join(lines) + "\n"


def options_of(config: Any, prefix: str = "") -> list[Option]:
    """Every option of a dataclass (its type, or an instance that holds the defaults)."""
    found: list[Option] = []
    for entry in fields(config):
        if not isinstance(config, type):
            default = getattr(config, entry.name)
        elif entry.default_factory is not MISSING:
            default = entry.default_factory()
        else:
            default = entry.default
        name = f"{prefix}{entry.name}"
        if is_dataclass(default) and not isinstance(default, type):
            found += options_of(default, f"{name}.")
        else:
            found.append(Option(name, _written(default), entry.metadata.get("help", "")))
    return found


def recipes_of(folder: str) -> list[str]:
    """The names that `recipe=` takes: configs/<folder>/recipe/<name>.yaml."""
    group = resources.files(f"loopdit.configs.{folder}").joinpath("recipe")
    if not group.is_dir():
        return []
    return sorted(f.name.removesuffix(".yaml") for f in group.iterdir() if f.name.endswith(".yaml"))


def _shown(option: Option) -> str:
    return f"{option.name}={option.default}"


def _rows(shown: str, text: str, column: int) -> list[str]:
    sentences = wrap(text, _WIDTH - column) or [""]
    pad = " " * column
    if len(shown) + 4 > column:
        return [f"  {shown}", *(f"{pad}{line}" for line in sentences)]
    first = f"  {shown}".ljust(column) + sentences[0]
    return [first.rstrip(), *(f"{pad}{line}" for line in sentences[1:])]


def _written(default: Any) -> str:
    """A default in the words of the command line."""
    if default is MISSING or default == "???":
        return "REQUIRED"
    if default is None:
        return "null"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, (list, tuple)):
        return f"[{','.join(_written(value) for value in default)}]"
    if default == "":
        return "''"
    return str(default)
