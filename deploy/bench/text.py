"""What `policy-bench` prints: a table of 80 columns and, below it, what it means."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from loopdit.deploy.bench.results import Row, timed
from loopdit.deploy.bench.timed_backend import CPU


def print_results(results: Mapping[str, Any], console: Console) -> None:
    """Everything that `run_bench` returned, for people."""
    rows = timed(results["rows"])
    _print(
        console,
        f"One action chunk: {_values(rows, 'steps')} steps, batch {_values(rows, 'batch')}, "
        f"threads {_values(rows, 'threads')}, {rows[0]['repetitions']} repetitions, "
        f"{results['observations']}",
    )
    console.print(results_table(results))
    for row in results["rows"]:
        if "reason" in row:
            _print(console, _not_measured(row))
    for cost in results["loop_costs"]:
        _print(console, _cost_line(cost))
    _print(console, headline(fastest(rows, results["clock"]), results))
    for line in _changes(results.get("comparison")):
        _print(console, line)
    if busy(results):
        _print(console, busy(results))
    _print(
        console,
        f"encode and denoise are p50; products are the chunk's matrix products alone; ratios go by "
        f"the {results['clock']} clock; error is the largest against torch float32, in raw action "
        f"units.",
    )


def results_table(results: Mapping[str, Any]) -> Table:
    """The rows that were measured, for people."""
    rows = timed(results["rows"])
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)  # 80 columns must do
    table.add_column("back end", no_wrap=True)
    varying = [name for name in ("steps", "batch") if len({row[name] for row in rows}) > 1]
    cpu = results["clock"] == CPU
    columns = {
        "p50_ms": "p50 ms",
        **({"cpu_p50_ms": "on core"} if cpu else {"p99_ms": "p99 ms"}),
        # Both are in the files; here they yield to what tells the rows apart.
        **({} if varying else {"encode_p50_ms": "encode", "denoise_p50_ms": "denoise"}),
    }
    for heading in ("K", *varying, *columns.values(), "x products", "error"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        times = (row[name] for name in columns)
        products = row.get("times_products")
        table.add_row(
            f"{row['backend']} {row['precision']}",
            *(str(row[name]) for name in ("loops", *varying)),
            *("-" if value is None else f"{value:.2f}" for value in times),
            f"{products['value']:.2f}" if products else "-",
            f"{row['max_abs_error']:.1e}",
        )
    return table


def median_by(clock: str) -> str:
    """The field of a row that has its median by one of the clocks."""
    return "cpu_p50_ms" if clock == CPU else "p50_ms"


def fastest(rows: Sequence[Row], clock: str) -> Row:
    """The row of the least median at the deepest K, at the first steps, batch and precision."""
    names = ("steps", "batch", "precision")
    same = [row for row in rows if all(row[name] == rows[0][name] for name in names)]
    deepest = max(row["loops"] for row in same)
    return min((r for r in same if r["loops"] == deepest), key=lambda r: r[median_by(clock)])


def headline(best: Row, results: Mapping[str, Any]) -> str:
    """In a sentence or two, what the fastest back end costs."""
    clock, costs = results["clock"], results["loop_costs"]
    median = best[median_by(clock)]
    said = (
        f"{best['backend']} is the fastest in {best['precision']}: a chunk at K = {best['loops']} "
        f"in {best['steps']} steps takes {median:.2f} ms"
    )
    said += " on a core (p50)" if clock == CPU else f" (p50; p99 {best['p99_ms']:.2f})"
    faster = best.get("faster_than_torch")
    if faster and best["backend"] != "torch":
        said += f", {faster['value']:.1f} times faster than torch eager with as many threads"
    if best.get("times_products"):
        said += (
            f", {best['times_products']['value']:.2f} times what its matrix products alone take in "
            f"the fastest general runtime"
        )
    cost = cost_of(best, costs)
    if cost is not None:
        said += (
            f". A loop costs {cost['slope_ms']['value']:.2f} ms, what does not depend on K "
            f"{cost['intercept_ms']['value']:.2f} ms"
        )
    return said + "."


def busy(results: Mapping[str, Any]) -> str:
    """A warning where the machine had other work before this began, else ""."""
    machine = results["machine"]
    if machine["load_average"] <= 0.5 * machine["cores"]:
        return ""
    return (
        f"The machine was busy before this began (load {machine['load_average']} on "
        f"{machine['cores']} cores), and times on the wall show the other work, too. "
    ) + (
        "Ratios here are of times on a core, which it changes little."
        if results["clock"] == CPU
        else "With clock=cpu ratios are of times on a core, which it changes little."
    )


def cost_of(best: Row, costs: Sequence[Row]) -> Row | None:
    """The entry of `loop_costs` that a row is part of."""
    key = ("backend", "precision", "steps", "batch")
    return next((cost for cost in costs if all(cost[n] == best[n] for n in key)), None)


def _print(console: Console, line: str) -> None:
    console.print(line, highlight=False, soft_wrap=True, markup=False)


def _values(rows: list[Row], name: str) -> str:
    return ", ".join(str(value) for value in dict.fromkeys(row[name] for row in rows))


def _not_measured(row: Row) -> str:
    at = f" K={row['loops']}" if "loops" in row else ""
    return f"{row['backend']} {row['precision']}{at}: not measured: {row['reason']}"


def _cost_line(cost: Row) -> str:
    slope, intercept, ratio = cost["slope_ms"], cost["intercept_ms"], cost["ratio"]
    return (
        f"{cost['backend']} {cost['precision']}, {cost['steps']} steps, batch {cost['batch']}: "
        f"{slope['value']:.2f} ms a loop [{slope['low']:.2f}, {slope['high']:.2f}] and "
        f"{intercept['value']:.2f} ms besides [{intercept['low']:.2f}, {intercept['high']:.2f}]; "
        f"K={cost['loops'][-1]} takes {ratio['value']:.2f} times K={cost['loops'][0]} "
        f"[{ratio['low']:.2f}, {ratio['high']:.2f}], {at_most_linear(cost)}"
    )


def at_most_linear(cost: Row) -> str:
    """Whether the deepest K takes at most as many times the shallowest's time as it has loops."""
    times = cost["loops"][-1] / cost["loops"][0]
    within = cost["ratio"]["value"] <= times
    return f"{'within' if within else 'beyond'} {times:g} times"


def _changes(comparison: dict[str, Any] | None) -> list[str]:
    if comparison is None:
        return []
    found = [
        f"Against {comparison['with']}: all together took {comparison['together']:.2f} of its "
        f"time; a row's own change is shown from {100 * comparison['margin']:.0f} % on"
    ]
    return found + [
        f"{one['backend']} {one['precision']} K={one['loops']} steps={one['steps']} "
        f"batch={one['batch']}: {one['verdict']}, {one['ratio']:.2f}, against the others "
        f"{one['against']:.2f} [{one['low']:.2f}, {one['high']:.2f}], p={one['p']:.2g}"
        for one in comparison["changes"]
    ]
