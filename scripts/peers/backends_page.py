"""The record of `bench_peer_backends.py` as Markdown, for people. A pure function of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from loopdit.deploy.bench.timed_backend import CPU
from loopdit.machine import describe_machine

Row = Mapping[str, Any]

_TIMES = ("p50_ms", "p90_ms", "p99_ms", "min_ms", "max_ms", "cpu_p50_ms")


def backends_page(record: dict[str, Any]) -> str:
    """The whole page: what was measured on what, what each took, and how they compare."""
    median = "cpu_p50_ms" if record["clock"] == CPU else "p50_ms"
    lines = [
        "# A diffusion policy of LeRobot's beside ours, on the same back ends",
        *("", _machine(record), "", _work(record), ""),
        "| chunk, ms | K | p50 | p90 | p99 | min | max | on a core, p50 | chunks |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(record["rows"], key=lambda row: -row[median]):
        cells = " | ".join(f"{row[name]:.2f}" for name in _TIMES)
        depth = row["loops"] or "\N{EN DASH}"
        name = f"{row['policy']}, {row['backend']}"
        lines.append(f"| {name} | {depth} | {cells} | {row['repetitions']} |")
    loops = sorted({row["loops"] for row in record["ratios"]})
    lines += ["", "| peer / ours | " + " | ".join(f"K = {k}" for k in loops) + " |"]
    lines.append("|---" * (1 + len(loops)) + "|")
    same = [row for row in record["ratios"] if "fastest" not in row]
    for backend in dict.fromkeys(row["backend"] for row in same):
        of_one = [row for row in same if row["backend"] == backend]
        lines.append(_ratios(f"both by {backend}", of_one))
    best = [row for row in record["ratios"] if "fastest" in row]
    pairs = dict.fromkeys((row["peer_backend"], row["backend"]) for row in best)
    said = ", ".join(f"{theirs} and {ours}" for theirs, ours in pairs)
    lines.append(_ratios(f"each by its fastest ({said})", best))
    for one in record["missing"]:
        lines += ["", f"Not measured: {one['backend']}: {one['reason']}"]
    return "\n".join(lines) + "\n"


def _machine(record: dict[str, Any]) -> str:
    openvino = record["versions"].get("openvino", "not installed")
    lerobot = record["peer"]["versions"]["lerobot"]
    commit = record["commit"] or "unknown"
    return (
        f"{record['began_at']}; commit {commit}; {describe_machine(record)}, openvino {openvino}; "
        f"the peer of lerobot {lerobot}."
    )


def _work(record: Row) -> str:
    count, peer = record["parameters"], record["peer"]
    settings = ", ".join(f"{name} {value}" for name, value in peer["settings"].items())
    return (
        f"{count['peer']:,} parameters of theirs ({settings}; {peer['parameters']['encoder']:,} of "
        f"them its encoder) to our {count['ours']:,} (bundle {record['model_id']}). "
        f"{record['steps']} denoising steps, batch 1, one thread, float32. {record['rounds']} "
        f"rounds of {record['visit']} timed chunks of each, in random order, the peer's at each K "
        f"of ours; outliers: {record['outliers']}. Ratios are of medians by the {record['clock']} "
        f"clock, with 95 % intervals by bootstrap of whole rounds."
    )


def _ratios(name: str, rows: Sequence[Row]) -> str:
    cells = [
        f"{of['value']:.2f} [{of['low']:.2f}, {of['high']:.2f}]"
        for row in sorted(rows, key=lambda row: row["loops"])
        for of in (row["peer_over_ours"],)
    ]
    return f"| {name} | {' | '.join(cells)} |"
