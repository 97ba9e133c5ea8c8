"""`report.html`: one self-contained page of what an evaluation found, for people.

A pure function of the files in the folder: eval.json, the videos it names, and where they are
there bench.json (latency for each back end) and demo.json (the commands that made it all).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from loopdit.errors import ConfigError
from loopdit.eval.reporting.report_plots import choices, figures, forests, frontier_figure
from loopdit.eval.reporting.report_rows import Group, completed, grouped
from loopdit.eval.reporting.report_tables import (
    condition_columns,
    constants,
    control_columns,
    funnel,
    measures,
)
from loopdit.eval.reporting.rollout_list import WORDS, Clip, RolloutList, rollout_list
from loopdit.eval.reporting.table import (
    control_text,
    interval_text,
    milliseconds,
    percent,
    success_text,
)
from loopdit.eval.reporting.verdict import summary
from loopdit.eval.runs.results import Row, load_results
from loopdit.eval.seeds import FIRST_TEST_SEED
from loopdit.machine import describe_machine
from loopdit.pages import page_templates
from loopdit.whole_file import whole_file

FILE = "report.html"
BENCH_FILE = "bench.json"
DEMO_FILE = "demo.json"
_TEMPLATES = Path(__file__).resolve().parent / "templates"

_FILTERS: dict[str, Any] = {
    "ms": milliseconds,
    "percent": percent,
    "success": success_text,
    "interval": interval_text,
    "control": control_text,
    "condition_columns": condition_columns,
    "control_columns": control_columns,
    "constants": constants,
    "measures": measures,
    "funnel": funnel,
    "forests": forests,
    "choices": choices,
    "frontier": frontier_figure,
    "svg": Markup,  # made here, from numbers and escaped names
}


def write_report(folder: Path) -> Path:
    """Write `folder`/report.html from what lies beside it, and return its path.

    Raises ConfigError when eval.json cannot be read or the page cannot be written.
    """
    path = folder / FILE
    try:
        with whole_file(path) as aside:
            aside.write_text(report_html(folder), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}. Free space there.") from error
    return path


def report_html(folder: Path) -> str:
    """The page. Raises ConfigError when eval.json cannot be read."""
    results = load_results(folder)
    rows = [completed(row) for row in results["results"]]
    beside = [completed(row) for row in results.get("controls", [])]
    comparisons: list[dict[str, Any]] = results.get("comparisons", [])
    groups, controls = grouped(rows, beside)
    subject = groups[0]
    listed = rollout_list(folder, rows, beside)
    demo = _optional(folder / DEMO_FILE)
    bench = _optional(folder / BENCH_FILE)
    return _page(
        results=results,
        rows=rows,
        groups=groups,
        controls=controls,
        subject=subject,
        summary=summary(subject, controls, comparisons),
        # What is shown first: differences.
        comparisons=sorted(comparisons, key=lambda one: not one["shown"]),
        hero=_hero(subject, rows, listed),
        figures=figures(groups, controls),
        listed=listed,
        words=WORDS,
        bench=[row for row in bench["rows"] if "reason" not in row] if bench else [],
        machine=describe_machine(results),
        same_starts=len({tuple(row["seeds"]) for row in (*rows, *controls)}) == 1,
        first_held_out=FIRST_TEST_SEED,
        stages=demo["stages"] if demo else [],
        commands=results["commands"],
        simulators=_different(rows, "simulator"),
        digests=_different(rows, "model_digest"),
        models=_different(rows, "model_id"),
    )


def _hero(subject: Group, rows: Sequence[Row], listed: RolloutList) -> list[Clip]:
    """One video of the best condition, rather of a success: the failures are further down."""
    best = next(number for number, row in enumerate(rows) if row is subject.best)
    clips = [clip for clip in listed.clips if clip.of.condition == best]
    return sorted(clips, key=lambda clip: clip.of.outcome != "success")[:1]


def _different(rows: Sequence[Row], name: str) -> list[str]:
    return list(dict.fromkeys(str(row[name]) for row in rows if row[name]))


def _optional(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path} ({error}). Remove it or make it again.") from error


def _page(**context: Any) -> str:
    environment = page_templates([_TEMPLATES])
    environment.filters.update(_FILTERS)
    return environment.get_template("report.html").render(**context)
