"""`report.html`: one self-contained page of what an evaluation found, for people.

A pure function of the files in the folder: eval.json, the videos it names, and where they are
there bench.json (latency for each back end) and demo.json (the commands that made it all).
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from loopdit.errors import ConfigError
from loopdit.eval.plot import Point, success_against_latency
from loopdit.eval.results import Row, load_results
from loopdit.eval.seeds import FIRST_HELD_OUT_SEED
from loopdit.eval.table import (
    control_text,
    interval_text,
    loops_text,
    milliseconds,
    percent,
    policy_text,
    success_text,
)
from loopdit.machine import describe_machine
from loopdit.whole_file import whole_file

FILE = "report.html"
BENCH_FILE = "bench.json"
DEMO_FILE = "demo.json"
_WITH_DIAL = ("served", "bundle")
_TEMPLATES = Path(__file__).resolve().parent / "templates"


@dataclass(frozen=True)
class Group:
    """The depths of one policy, ascending."""

    title: str
    rows: list[Row]

    @property
    def best(self) -> Row:
        """Most successes; of equals, the least compute."""
        return max(self.rows, key=lambda row: (row["successes"], -(row["loops"] or 0)))


def write_report(folder: Path) -> Path:
    """Write `folder`/report.html from what lies beside it, and return its path.

    Raises ConfigError when eval.json cannot be read or the page cannot be written.
    """
    path = folder / FILE
    try:
        with whole_file(path) as aside:
            aside.write_text(report_html(folder))
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}. Free space there.") from error
    return path


def report_html(folder: Path) -> str:
    """The page. Raises ConfigError when eval.json cannot be read."""
    results = load_results(folder)
    rows: list[Row] = results["results"]
    groups, controls = grouped(rows)
    subject = groups[0] if groups else Group(policy_text(rows[0]), rows[:1])
    demo = _optional(folder / DEMO_FILE)
    bench = _optional(folder / BENCH_FILE)
    return _page(
        results=results,
        groups=groups,
        controls=controls,
        subject=subject,
        summary=summary(subject, controls),
        hero=_videos(folder, subject.best)[:1],
        plot=Markup(_plot(groups)) if groups else "",
        videos={id(row): _videos(folder, row) for row in rows},
        bench=bench["rows"] if bench else [],
        machine=describe_machine(results),
        same_starts=len({tuple(row["seeds"]) for row in rows}) == 1,
        first_held_out=FIRST_HELD_OUT_SEED,
        stages=demo["stages"] if demo else [],
        commands=results["commands"],
    )


def grouped(rows: Sequence[Row]) -> tuple[list[Group], list[Row]]:
    """The policies that have a dial, in the order they were measured, and the controls."""
    groups: dict[tuple[str, str], list[Row]] = {}
    controls: list[Row] = []
    for row in rows:
        if row["kind"] in _WITH_DIAL:
            groups.setdefault((row["policy"], policy_text(row)), []).append(row)
        else:
            controls.append(row)
    by_depth = [
        Group(title, sorted(of_one, key=lambda row: row["loops"]))
        for (_, title), of_one in groups.items()
    ]
    return by_depth, controls


def summary(subject: Group, controls: Sequence[Row]) -> list[str]:
    """The result in a few plain sentences."""
    best = subject.best
    low, high = (percent(bound) for bound in best["ci95"])
    depth = f" with {_count(best['loops'], 'loop')} (K = {best['loops']})" if best["loops"] else ""
    held_out = best["seeds"][0] >= FIRST_HELD_OUT_SEED
    tried = f"{best['episodes']} starting positions"
    tried += " that no demonstration used" if held_out else ""
    sentences = [
        f"A simulated robot arm was told “{best['instruction']}” in {tried}. "
        f"The {policy_text(best)} succeeded in {best['successes']} of {best['episodes']}{depth}: "
        f"{percent(best['success_rate'])} %, 95 % interval {low} to {high} %.",
    ]
    if best["loops"]:
        sentences.append(
            f"A chunk of actions then took {milliseconds(best['latency_ms']['p50'])} ms to come "
            f"(median; {milliseconds(best['latency_ms']['p99'])} ms at the 99th percentile), and "
            f"the control rate held was {control_text(best)}."
        )
    told = [
        f"{policy_text(row)} {success_text(row)}"
        for row in controls
        if row["seeds"] == best["seeds"] and row is not best
    ]
    if told:
        sentences.append(f"For comparison, on the same starts: {', '.join(told)}.")
    if len(subject.rows) > 1:
        sentences.append(_depth_verdict(subject))
    return sentences


def _depth_verdict(subject: Group) -> str:
    """What this run says of depth, and no more than it says."""
    best = subject.best
    lowest = best["ci95"][0]
    worse = [str(row["loops"]) for row in subject.rows if row["ci95"][1] < lowest]
    if worse:
        return (
            f"K = {best['loops']} is better than K = {', '.join(worse)}: "
            f"their 95 % intervals lie apart."
        )
    return (
        "The intervals of all depths overlap: this run does not show that one depth "
        "succeeds more often than another."
    )


def _plot(groups: Sequence[Group]) -> str:
    return success_against_latency(
        [
            [
                Point(
                    label=f"K={row['loops']}",
                    rate=row["success_rate"],
                    low=row["ci95"][0],
                    high=row["ci95"][1],
                    p50_ms=row["latency_ms"]["p50"],
                    p99_ms=row["latency_ms"]["p99"],
                )
                for row in group.rows
            ]
            for group in groups
        ]
    )


def _videos(folder: Path, row: Row) -> list[dict[str, Any]]:
    """The row's videos that exist, each with its `src` as a data: URI."""
    found: list[dict[str, Any]] = []
    for video in row["videos"]:
        path = folder / video["file"]
        if path.is_file():
            data = base64.b64encode(path.read_bytes()).decode()
            found.append({**video, "src": f"data:video/mp4;base64,{data}"})
    return found


def _optional(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path} ({error}). Remove it or make it again.") from error


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _page(**context: Any) -> str:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        ms=milliseconds,
        percent=percent,
        policy=policy_text,
        depth=loops_text,
        success=success_text,
        interval=interval_text,
        control=control_text,
        rowid=id,
    )
    return environment.get_template("report.html").render(**context)
