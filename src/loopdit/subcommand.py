"""Words that a command takes by their place: its subcommand, and what that one works on.

    policy-data merge A.zarr B.zarr out=C.zarr
    policy-eval compare outputs/before outputs/after

A word by its place is written as the option that it stands for, and the rest is `run_command`'s.
"""

import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import NoReturn, TypeVar

from loopdit.command import Command, run_command

T = TypeVar("T")


@dataclass(frozen=True)
class CommandGroup:
    """A command that does nothing but by its subcommands. `does` and `note` are the first and the
    last line of its --help; `subcommands` what each does; `module` names the one of a subcommand,
    which is imported when it is asked for and has a `main` of the arguments."""

    name: str
    does: str
    subcommands: Mapping[str, str]
    module: Callable[[str], str]
    note: str

    def main(self) -> None:
        """Do what the program's arguments say."""
        first = sys.argv[1] if len(sys.argv) > 1 else ""
        if first in self.subcommands:
            import_module(self.module(first)).main(sys.argv[2:])
        elif first in ("--help", "-h"):
            sys.stdout.write(self._help_text())
        elif not first:
            have = ", ".join(self.subcommands)
            sys.exit(f"{self.name}: error: no subcommand is given. They are: {have}.")
        else:
            refuse_subcommand(self.name, first, self.subcommands)

    def _help_text(self) -> str:
        lines = [f"{self.name}: {self.does}", "", "Subcommands (each with a --help of its own):"]
        lines += [f"  {name:<10}{summary}" for name, summary in self.subcommands.items()]
        return "\n".join([*lines, "", self.note]) + "\n"


def run_subcommand(
    command: Command,
    config: type[T],
    run: Callable[[T], object],
    arguments: Sequence[str],
    places: Sequence[str],
    rest: str = "",
) -> None:
    """`run_command` with `arguments`, whose words by place are the options `places`, in order.

    `rest` is the option, a list, that takes all words after those; without it one word too many
    is refused as an argument without a name.
    """
    original = sys.argv[:]
    sys.argv[:] = [command.name, *_named(arguments, places, rest)]
    try:
        run_command(command, config, run)
    finally:
        sys.argv[:] = original


def refuse_subcommand(name: str, word: str, subcommands: Iterable[str]) -> NoReturn:
    """Exit with the line that says which subcommands `name` has, the nearest to `word` first."""
    have = list(subcommands)
    near = get_close_matches(word, have, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    sys.exit(
        f"{name}: error: {word!r} is none of the subcommands.{hint} They are: {', '.join(have)}."
    )


def _named(arguments: Sequence[str], places: Sequence[str], rest: str) -> list[str]:
    words = [argument for argument in arguments if _is_word(argument)]
    options = [argument for argument in arguments if not _is_word(argument)]
    named = [f"{name}={_quoted(word)}" for name, word in zip(places, words, strict=False)]
    more = words[len(places) :]
    if more and rest:
        named.append(f"{rest}=[{','.join(map(_quoted, more))}]")
        more = []
    return [*named, *more, *options]


def _is_word(argument: str) -> bool:
    """Whether it is no option; `data/year=2024/a.zarr` is a path, and no option has a slash."""
    name, equals, _ = argument.partition("=")
    is_path = "/" in name and not name.startswith("hydra/")
    return not argument.startswith("-") and (not equals or is_path)


def _quoted(word: str) -> str:
    """In the quotes in which Hydra takes anything; it unescapes what stands before a quote only."""

    def escaped(found: re.Match[str]) -> str:
        return found[1] * 2 + found[2].replace("'", "\\'")

    inside = re.sub(r"(\\*)('|$)", escaped, word)
    return f"'{inside}'"
