"""`bench.html`: one self-contained page of a benchmark, for people, on a desk or a phone.

A pure function of what `bench.json` holds. No scripts, no addresses, light or dark by the reader's
own setting.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from loopdit.deploy.bench.plots import distance_png, distance_svg, latency_png, latency_svg
from loopdit.deploy.bench.results import Row, timed
from loopdit.deploy.bench.text import (
    at_most_linear,
    busy,
    cost_of,
    fastest,
    headline,
    median_by,
)
from loopdit.deploy.bench.timed_backend import WALL
from loopdit.pages import page_templates

PAGE_FILE = "bench.html"
_TEMPLATES = Path(__file__).resolve().parent / "templates"
_NONE = "\N{EN DASH}"
# What a row has where nothing was measured against.
_OPTIONAL = (
    *("faster_than_torch", "times_products", "times_floor"),
    *("products_p50_ms", "floor_ms"),
)


def bench_html(results: Mapping[str, Any]) -> str:
    """The page of the `results` that `policy-bench` wrote."""
    rows: list[Row] = [dict.fromkeys(_OPTIONAL) | row for row in timed(results["rows"])]
    costs = [
        dict.fromkeys(("floor_slope_ms", "floor_intercept_ms")) | c for c in results["loop_costs"]
    ]
    best = fastest(rows, results["clock"])
    environment = page_templates([_TEMPLATES])
    environment.filters.update(ms=_number, interval=_interval, at_most_linear=at_most_linear)
    return environment.get_template(PAGE_FILE).render(
        results={**results, "loop_costs": costs},
        best=best,
        sentence=headline(best, results),
        tiles=_tiles(best, results),
        warning=busy(results),
        works=_works(rows, results["clock"]),
        missing=[row for row in results["rows"] if "reason" in row],
        comparison=results.get("comparison"),
    )


def picture_files(results: Mapping[str, Any]) -> dict[str, bytes]:
    """The plots of the page as PNG by file name, of the first steps and batch."""
    work = _works(timed(results["rows"]), results["clock"])[0]
    return {
        "latency.png": latency_png(work["plotted"]),
        "distance.png": distance_png([r for r in work["plotted"] if r["loops"] == work["deepest"]]),
    }


def _tiles(best: Row, results: Mapping[str, Any]) -> list[dict[str, str]]:
    cost = cost_of(best, results["loop_costs"])
    median = best[median_by(results["clock"])]
    faster, products = best["faster_than_torch"], best["times_products"]
    found = [(f"{median:.2f} ms", f"{best['backend']} at K = {best['loops']}, p50")]
    if cost is not None:
        found.append((f"{cost['slope_ms']['value']:.2f} ms", "for each loop"))
    if faster is not None:
        found.append((f"{faster['value']:.1f}x", "torch eager's speed"))
    if products is not None:
        found.append((f"{products['value']:.2f}x", "the time of its matrix products alone"))
    return [{"value": value, "label": label} for value, label in found]


def _works(rows: Sequence[Row], clock: str) -> list[dict[str, Any]]:
    """What is shown together: rows of the same steps and batch."""
    groups: dict[tuple[int, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["steps"], row["batch"]), []).append(row)
    works: list[dict[str, Any]] = []
    for number, ((steps, batch), found) in enumerate(groups.items()):
        deepest = max(row["loops"] for row in found)
        plotted = [_by_clock(row, clock) for row in found]
        threads = ", ".join(sorted({str(row["threads"]) for row in found}))
        title = f"{steps} denoising steps, batch {batch}, threads {threads}"
        works.append(
            {
                "title": title,
                "rows": found,
                "plotted": plotted,
                "deepest": deepest,
                "latency_svg": Markup(latency_svg(plotted, f"latency{number}")),
                "distance_svg": Markup(
                    distance_svg([r for r in plotted if r["loops"] == deepest], f"distance{number}")
                ),
            }
        )
    return works


def _by_clock(row: Row, clock: str) -> Row:
    """What is plotted: with the other clock medians alone, as parts and tails are of the wall."""
    if clock == WALL:
        return row
    median = row[median_by(clock)]
    return row | {"p50_ms": median, "p90_ms": median, "encode_p50_ms": None}


def _number(value: float | None) -> str:
    """Three digits that count, or a dash."""
    if value is None:
        return _NONE
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _interval(found: Mapping[str, float] | None) -> Markup | str:
    if found is None:
        return _NONE
    value, low, high = (f"{found[name]:.2f}" for name in ("value", "low", "high"))
    return Markup("{} <i>[{}, {}]</i>").format(value, low, high)
