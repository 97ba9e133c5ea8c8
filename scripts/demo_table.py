"""Print the README's results table from a finished demo: `python scripts/demo_table.py FOLDER`.

The first line names the commit and how long the demo and its training took.
"""

import json
import sys
from pathlib import Path

from loopdit.eval.reporting.table import (
    interval_text,
    loops_text,
    milliseconds,
    policy_text,
    success_text,
)
from loopdit.progress import clock_text


def main(folder: Path) -> None:
    """One row for each policy and depth, in the order they were measured."""
    results = json.loads((folder / "eval.json").read_text())
    demo = json.loads((folder / "demo.json").read_text())
    stages = {stage["command"].split()[0]: stage["seconds"] for stage in demo["stages"]}
    commit = (results["commit"] or "no commit")[:7]
    took = f"{clock_text(demo['seconds'])} in all, {clock_text(stages['policy-train'])} training"
    lines = [f"commit {commit}, {took}"]
    for row in results["results"]:
        latency, control = row["latency_ms"], row["control"]
        cells = (
            policy_text(row),
            loops_text(row),
            success_text(row),
            interval_text(row),
            f"{milliseconds(latency['p50'])} ms",
            f"{milliseconds(latency['p99'])} ms",
            f"{control['rate_hz']:.1f} Hz",
        )
        lines.append(f"| {' | '.join(cells)} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
