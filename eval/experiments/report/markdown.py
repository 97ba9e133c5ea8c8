"""The report card as Markdown: the same tables as the page, plots as files beside it."""

from collections.abc import Sequence

from loopdit.eval.experiments.analysis.verdict import ALPHA, VERDICTS
from loopdit.eval.experiments.report.card import Card, Row
from loopdit.eval.experiments.report.words import (
    NONE,
    claimed_text,
    number_text,
    p_text,
    power_text,
    range_text,
    size_text,
    value_text,
)

FIGURES = "figures"


def card_markdown(found: Card) -> str:
    """The whole text."""
    parts = [
        "# The paper's experiments, and ours",
        _counts(found),
        "## The paper's claims",
        _rows(found.paper_rows),
        "## Ours",
        _rows(found.our_rows),
        "## The paper's figures",
        *(_figure(found, place) for place in range(len(found.figures))),
        "## The paper's own numbers",
        _checks(found),
        "## Each experiment",
        *(_experiment(row) for row in found.rows),
        "## How it was judged",
        _method(),
        _table(("made with", ""), found.provenance),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _counts(found: Card) -> str:
    counts = found.counts()
    listed = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS)
    return f"Of the numbers 1 to {len(found.paper_rows)} of the paper's table: {listed}."


def _rows(rows: Sequence[Row]) -> str:
    heads = ("#", "experiment", "claim", "what was measured", "its test", "ours [95 %]", "n",
             "paper", "scale", "verdict", "why")  # fmt: skip
    lines: list[Sequence[str]] = []
    for row in rows:
        one, first = row.verdict, row.verdict.headline
        lines.append(
            (
                number_text(one),
                f"[{one.experiment.title}](#{_anchor(row)})",
                one.experiment.claim,
                NONE if first is None else first.says,
                NONE if first is None else first.test,
                value_text(first),
                NONE if first is None else str(first.n),
                ", ".join(filter(None, (claimed_text(first), size_text(first)))),
                one.scale or NONE,
                f"**{one.verdict}**",
                one.why,
            )
        )
    return _table(heads, lines)


def _figure(found: Card, place: int) -> str:
    figure = found.figures[place]
    images = " ".join(f"![{panel.title}]({FIGURES}/{panel.name}.svg)" for panel in figure.panels)
    return f"### Figure {figure.number}. {figure.title}\n\n{figure.caption}\n\n{images}"


def _checks(found: Card) -> str:
    wrong = [check for check in found.checks if not check.holds]
    lines = [
        (
            NONE if check.experiment is None else str(check.experiment),
            check.where,
            check.printed,
            range_text(check),
            check.says,
        )
        for check in wrong
    ]
    return (
        f"{len(found.checks)} numbers and sentences were recomputed from what else is printed; "
        f"{len(wrong)} do not hold. A number fails only if no values within the rounding of what "
        f"it is made of give it.\n\n"
        + _table(("#", "where", "printed", "recomputed", "what was found"), lines)
    )


def _experiment(row: Row) -> str:
    one = row.verdict
    experiment = one.experiment
    number = "" if experiment.number is None else f"{experiment.number}. "
    parts = [
        f'### <a id="{_anchor(row)}"></a>{number}{experiment.title}',
        experiment.claim,
        f"**{one.verdict}**. {one.why}",
    ]
    if one.findings:
        lines = [
            (
                f"{finding.id} (beside)" if finding.beside else finding.id,
                finding.says,
                finding.test,
                value_text(finding),
                ", ".join(filter(None, (claimed_text(finding), size_text(finding)))),
                str(finding.n),
                p_text(finding.p_supports),
                p_text(finding.p_refutes),
                power_text(finding),
                finding.note,
            )
            for finding in one.findings
        ]
        heads = ("question", "of", "test", "ours [95 %]", "paper", "n", "p shown", "p refuted",
                 "power", "note")  # fmt: skip
        parts.append(_table(heads, lines))
    if experiment.choices:
        parts.append("Chosen, where the paper leaves it open:")
        parts.append("\n".join(f"- {choice}" for choice in experiment.choices))
    of = f"{row.runs} of {row.runs_wanted}"
    runs = f"{of} runs at scale `{one.scale}`" if one.scale else "no runs"
    failed = f", {row.failed} failed" if row.failed else ""
    parts.append(f"{runs}{failed}; declared in [{experiment.name}.yaml]({row.configuration}).")
    if row.plot is not None:
        parts.append(f"![{row.plot.title}]({FIGURES}/{row.plot.name}.svg)")
    return "\n\n".join(parts)


def _method() -> str:
    return (
        f"A claim is *reproduced* where all its questions are answered for it at {ALPHA:g}, "
        f"corrected by Holm over the experiments that were tested (the paper's and ours apart); "
        f"*not reproduced* where one is answered against it, likewise; *underpowered* where "
        f"neither is shown, or where no arm is shown to be 1.05 times as good as the constant "
        f"predictor, or chance, so that noise is compared; *not run at this scale* "
        f"without results, without all of its cells, or after a smoke run; *missing in the paper* "
        f"is number 23. A claim of no effect needs an equivalence test with the margin that "
        f"its file states. Intervals are of 95 %, over seeds. What stands under *beside* is no "
        f"part of a verdict. Questions and margins are declared in each file, whose history says "
        f"since when."
    )


def _anchor(row: Row) -> str:
    return row.experiment.name.replace("_", "-")


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"

    return "\n".join([line(heads), line(["---"] * len(heads)), *map(line, lines)])
