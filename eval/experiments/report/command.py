"""`policy-experiment report`: what the results show, as a page, as Markdown or as JSON."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from loopdit.command import Command, option, require_choice
from loopdit.errors import ConfigError
from loopdit.eval.experiments.experiment import SCALES
from loopdit.subcommand import run_subcommand

_WIDTH = 110  # of the table where there is no terminal

COMMAND = Command(
    name="policy-experiment report",
    folder="experiment_report",
    summary="verdicts on the paper's claims and ours: report.html, report.md, figures.",
    examples=(
        "policy-experiment report out=outputs/experiments",
        "policy-experiment report out=outputs/experiments scale=cpu json=true",
    ),
)


@dataclass(frozen=True)
class ReportConfig:
    """Which results are reported, and how."""

    out: str = option("outputs/experiments", "folder of the results; the report goes there, too")
    scale: str = option("", f"{', '.join(SCALES)}; empty: of each experiment the largest there is")
    json: bool = option(False, "print one JSON object and write nothing")

    def __post_init__(self) -> None:
        if self.scale:
            require_choice("scale", self.scale, SCALES)


def main(arguments: Sequence[str]) -> None:
    """Entry point of `policy-experiment report`."""
    run_subcommand(COMMAND, ReportConfig, run, arguments, places=())


def run(config: ReportConfig) -> None:
    """Print the JSON, or write the report and print its table."""
    # Imported here, so that --help answers at once.
    from loopdit.eval.experiments.report.card import Card, as_json, card
    from loopdit.eval.experiments.report.files import write_report
    from loopdit.eval.experiments.report.words import claimed_text, number_text, value_text

    out = Path(config.out)
    if config.json:
        sys.stdout.write(json.dumps(as_json(out, config.scale), allow_nan=False) + "\n")
        return

    def table(found: Card) -> Table:
        made = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        made.add_column("#", justify="right")
        made.add_column("experiment", overflow="fold")
        for name in ("ours [95 %]", "n", "paper"):
            made.add_column(name, justify="right", no_wrap=True)
        made.add_column("scale")
        made.add_column("verdict", overflow="fold")
        for row in found.rows:
            one, first = row.verdict, row.verdict.headline
            made.add_row(
                number_text(one),
                escape(one.experiment.title),
                escape(value_text(first)),
                "" if first is None else str(first.n),
                claimed_text(first),
                one.scale,
                one.verdict,
            )
        return made

    found = card(out, config.scale)
    try:
        page = write_report(out, found)
    except OSError as error:
        raise ConfigError(
            f"cannot write the report to {out}: {error.strerror}. Free space there."
        ) from error
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDTH)
    console.print(table(found))
    wrong = sum(not check.holds for check in found.checks)
    console.print(
        f"{len(found.checks)} of the paper's own numbers and sentences recomputed: {wrong} do not "
        f"hold. The page: {page}",
        soft_wrap=True,
    )
