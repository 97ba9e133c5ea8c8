"""policy-eval compare A B: what two evaluations show about each other, pair by pair of seeds.

A and B are folders with an eval.json. One folder alone compares its rows with the first one of
their environment. All comparisons of a call are one family, and p values are corrected for it.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from loopdit.command import Command, option
from loopdit.errors import ConfigError
from loopdit.eval.reporting.comparison_table import comparison_table, left_out_text
from loopdit.eval.runs.results import FILE, load_results
from loopdit.eval.statistics.comparison import Comparison, compare_rows, corrected
from loopdit.eval.statistics.matching import (
    Matches,
    Repeated,
    circumstances,
    match_rows,
    match_within,
    repeated,
    row_text,
    varying,
)
from loopdit.eval.statistics.seed_pairs import Row, policy_name
from loopdit.subcommand import run_subcommand
from loopdit.whole_file import require_folder, whole_file

COMMAND = Command(
    name="policy-eval compare",
    folder="eval_compare",
    summary="compare two evaluations on the seeds they share, or the rows of one.",
    examples=(
        "policy-eval compare outputs/before outputs/after",
        "policy-eval compare outputs/eval env=lift",
        "policy-eval compare outputs/expert outputs/eval by=[env] out=outputs/compared",
    ),
)
COMPARE_FILE = "compare.json"
_FORMAT = "loopdit-compare"
_FORMAT_VERSION = 1


@dataclass(frozen=True)
class CompareConfig:
    """What to compare with what."""

    a: str = option("???", f"folder with the {FILE} to compare with; the first argument is it, too")
    b: str = option("", "folder to compare; empty: the rows of A with the first of their env")
    env: str = option("", "only this environment")
    labels: list[str] = option([], "only policies with these labels, or kinds where none was given")
    loops: list[int] = option([], "only these depths K")
    by: list[str] = option([], "what rows have to agree on beside env; empty: the whole condition")
    out: str = option("", f"folder for {COMPARE_FILE}; empty: print only")


@dataclass(frozen=True)
class Member:
    """One comparison of the family, and what a table calls it."""

    env: str
    title: str
    comparison: Comparison


@dataclass(frozen=True)
class Compared:
    """The comparisons, and what could not be compared."""

    family: list[Member]
    unmatched_a: list[str]
    unmatched_b: list[str]
    unpaired: list[str]
    repeated: Repeated | None
    warnings: list[str]


def main(argv: Sequence[str]) -> None:
    """Entry point of `policy-eval compare`; `argv` without the command's name."""
    run_subcommand(COMMAND, CompareConfig, run, argv, places=("a", "b"))


def run(config: CompareConfig) -> None:
    """Compare, print, and write what was found if asked to."""
    if config.out:
        require_folder(Path(config.out))
    compared = compare(config)
    _print(compared, config)
    if config.out:
        path = Path(config.out, COMPARE_FILE)
        with whole_file(path) as aside:
            aside.write_text(json.dumps(_content(compared, config), indent=1))
        sys.stdout.write(f"Comparisons: {path}\n")


def compare(config: CompareConfig) -> Compared:
    """All comparisons. Raises ConfigError for a folder without results and where nothing at all
    can be compared."""
    a = _load(config.a)
    rows_a = _chosen(a, config.a, config)
    if config.b:
        b = _load(config.b)
        rows_b = _chosen(b, config.b, config)
        matches = match_rows(rows_a, rows_b, config.by)
        both = match_rows([*rows_a, *_controls(a, config)], [*rows_b, *_controls(b, config)])
        warnings, twice = circumstances(a, b), repeated(both.pairs)
    else:
        rows_b = []
        matches = match_within(rows_a)
        warnings, twice = [], None
    _require_matches(matches, config)
    keys = varying([*rows_a, *rows_b])
    family: list[Member] = []
    unpaired: list[str] = []
    for reference, row in matches.pairs:
        names = row_text(reference, keys), row_text(row, keys)
        title = f"{row.get('env')}: {' / '.join(dict.fromkeys(names))}"
        if config.b:
            names = f"A ({names[0]})", f"B ({names[1]})"
        try:
            comparison = compare_rows(reference, row, names)
        except ConfigError as error:  # no seeds in common; other rows may have some
            unpaired.append(str(error))
        else:
            family.append(Member(str(row.get("env")), title, comparison))
    if not family:
        raise ConfigError(unpaired[0])
    comparisons = corrected([member.comparison for member in family])
    return Compared(
        [replace(one, comparison=made) for one, made in zip(family, comparisons, strict=True)],
        [_listed(row, keys) for row in matches.unmatched_a],
        [_listed(row, keys) for row in matches.unmatched_b],
        unpaired,
        twice,
        warnings,
    )


def _load(folder: str) -> dict[str, Any]:
    if not Path(folder, FILE).is_file():
        raise ConfigError(
            f"{folder} has no {FILE}. Name a folder that policy-eval wrote: its out=."
        )
    return load_results(Path(folder))


def _chosen(content: dict[str, Any], folder: str, config: CompareConfig) -> list[Row]:
    rows: list[Row] = content["results"]
    chosen = [
        row
        for row in rows
        if (not config.env or row.get("env") == config.env)
        and (not config.labels or policy_name(row) in config.labels)
        and (not config.loops or row.get("loops") in config.loops)
    ]
    if not chosen:
        have = ", ".join(dict.fromkeys(_listed(row, ()) for row in rows)) or "none"
        raise ConfigError(
            f"no row of {folder} is left by env=, labels= and loops=. It has: {have}."
        )
    return chosen


def _controls(content: dict[str, Any], config: CompareConfig) -> list[Row]:
    """What ran beside the policies: not compared, but it has to come out the same again."""
    rows: list[Row] = content.get("controls", [])
    return [row for row in rows if not config.env or row.get("env") == config.env]


def _require_matches(matches: Matches, config: CompareConfig) -> None:
    if matches.pairs:
        return
    if not config.b:
        raise ConfigError(
            f"{config.a} has one row for each environment and nothing to compare it with. "
            f"Name a second folder."
        )
    raise ConfigError(
        f"no row of {config.a} agrees with one of {config.b} on {', '.join(matches.by)}. "
        f"Choose less with by=, such as by=[env] for that alone."
    )


def _listed(row: Row, keys: Sequence[str]) -> str:
    return f"{row.get('env')}: {row_text(row, keys)}"


def _content(compared: Compared, config: CompareConfig) -> dict[str, Any]:
    """What compare.json says."""
    return {
        "format": _FORMAT,
        "format_version": _FORMAT_VERSION,
        "a": config.a,
        "b": config.b or None,
        "warnings": compared.warnings,
        "comparisons": [
            {"env": member.env, **member.comparison.to_dict()} for member in compared.family
        ],
        "unmatched": {"a": compared.unmatched_a, "b": compared.unmatched_b},
        "unpaired": compared.unpaired,
        "determinism": asdict(compared.repeated) if compared.repeated else None,
    }


def _print(compared: Compared, config: CompareConfig) -> None:
    console = Console()

    def say(text: str) -> None:
        console.print(text, soft_wrap=True, markup=False, highlight=False)

    for warning in compared.warnings:
        say(f"warning: {warning}")
    console.print(comparison_table([(one.title, one.comparison) for one in compared.family]))
    for one in compared.family:
        made = one.comparison
        say(" ".join(filter(None, [f"- {one.env}: {made.sentence()}", left_out_text(made)])))
    for name, rows in {"A": compared.unmatched_a, "B": compared.unmatched_b}.items():
        if rows:
            say(f"{f'Unmatched in {name}' if config.b else 'Alone'}: {'; '.join(rows)}")
    for reason in compared.unpaired:
        say(f"Not compared: {reason}")
    if compared.repeated:
        what = "all states" if compared.repeated.hashed else "steps and outcome"
        say(
            f"Determinism: {compared.repeated.differ} of {compared.repeated.rollouts} rollouts "
            f"differ (same policy, condition and seed in both, compared by {what})."
        )
